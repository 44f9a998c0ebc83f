//! Denials in floods, over days, and where nobody fetches them.

use super::*;

const CODE: Cow<'static, str> = Cow::Borrowed("AUTHENTICATION_FAILED");

fn at(second: u64) -> Now {
    let start = 1_000_020;
    Now { ticks: (start + second) * SECOND, time: Timestamp((start + second) as i64) }
}

fn denials(telling: Telling, per_day: u64) -> Denials {
    Denials::new(DenialLimits { telling, per_day })
}

fn deny(denials: &Denials, client: &str, code: impl Into<Cow<'static, str>>, now: Now) {
    let client = client.parse().unwrap();
    let object = Object::Resource("r");
    let suspect = Suspect::default();
    let application = Some("default");
    let code = &code.into();
    let denial = Denial { code, status: 401, client, object, application, suspect };
    denials.count(denial, now);
}

fn all(untold: &Untold) -> u64 {
    let each: u64 = untold.each.iter().map(|told| told.times).sum();
    each + untold.more.as_ref().map_or(0, |more| more.times)
}

#[test]
fn of_a_kind_the_first_is_told_and_then_each_after_so_many() {
    let denials = denials(Telling::Sampled(100), 1000);
    for _ in 0..250 {
        deny(&denials, "192.0.2.1", CODE, at(0));
    }
    let times =
        |untold: &Untold| -> Vec<u64> { untold.each.iter().map(|told| told.times).collect() };
    let told = denials.take(100, Rest::InTime, at(1));
    assert_eq!(times(&told), [1, 100, 100]);
    // Another kind, and the same in the next minute: that stands for those that were counted too.
    deny(&denials, "192.0.2.2", CODE, at(2));
    deny(&denials, "192.0.2.1", "OTHER", at(2));
    deny(&denials, "192.0.2.1", CODE, at(60));
    let told = denials.take(100, Rest::InTime, at(60));
    assert_eq!(times(&told), [1, 1, 50]);
    // An IPv6 network is one client.
    deny(&denials, "2001:db8::1", CODE, at(61));
    deny(&denials, "2001:db8::2", CODE, at(61));
    assert_eq!(denials.take(100, Rest::InTime, at(62)).each.len(), 1);
}

#[test]
fn a_flood_is_counted_and_takes_neither_memory_nor_entries() {
    for telling in [Telling::All, Telling::Sampled(100)] {
        let denials = denials(telling, 400);
        let (mut told, mut entries) = (0, 0);
        for second in 0..200 {
            for number in 0..1000_u32 {
                let client = std::net::Ipv4Addr::from(number * 7919 + second).to_string();
                deny(&denials, &client, format!("CODE_{}", number % 40), at(second.into()));
            }
            let untold = denials.take(usize::MAX, Rest::InTime, at(second.into()));
            told += all(&untold);
            entries += untold.each.len() + usize::from(untold.more.is_some());
        }
        let kinds: usize = denials.parts.iter().map(|part| locked(part).len()).sum();
        assert!(kinds <= PARTS * KINDS, "{kinds}");
        let last = denials.take(usize::MAX, Rest::Now, at(200));
        assert_eq!(told + all(&last), 200_000, "{telling:?}");
        let more = last.more.unwrap();
        assert_eq!(more.codes.len(), CODES);
        // A quarter of the day's at once, and few more in three minutes.
        assert!((100..=103).contains(&entries), "{entries}");
    }
}

#[test]
fn a_day_has_its_entries_and_no_more() {
    let denials = denials(Telling::All, 400);
    let mut entries = 0;
    for second in (0..24 * 3600).step_by(20) {
        deny(&denials, "192.0.2.1", CODE, at(second));
        entries += denials.take(usize::MAX, Rest::InTime, at(second)).each.len();
    }
    assert!((399..=400).contains(&entries), "{entries}");
}

#[test]
fn those_that_nobody_fetches_are_counted_and_what_comes_back_is_not_lost() {
    let denials = denials(Telling::All, 100_000);
    for _ in 0..5000 {
        deny(&denials, "192.0.2.1", CODE, at(0));
    }
    let untold = denials.take(usize::MAX, Rest::Now, at(1));
    assert_eq!((untold.each.len(), all(&untold)), (WAITING, 5000));
    deny(&denials, "192.0.2.1", CODE, at(2));
    denials.put_back(untold);
    let again = denials.take(usize::MAX, Rest::InTime, at(3));
    assert_eq!((again.each.len(), all(&again)), (WAITING, 5001));
    assert_eq!(all(&denials.take(usize::MAX, Rest::Now, at(3))), 0);
}

#[test]
fn many_are_told_together_once_in_an_hour() {
    let denials = denials(Telling::All, 4);
    for second in [0, 1, 2, 10, 3599, 3600, 3700] {
        deny(&denials, "192.0.2.1", CODE, at(second));
    }
    let first = denials.take(9, Rest::InTime, at(3700)).more.unwrap();
    assert_eq!((first.times, first.since, first.until), (6, at(1).time, at(3700).time));
    deny(&denials, "192.0.2.1", CODE, at(3701));
    assert!(denials.take(9, Rest::InTime, at(3702)).more.is_none());
    assert!(denials.take(9, Rest::InTime, at(7400)).more.is_some());
}

#[test]
fn nothing_is_told_where_nothing_is_asked_for() {
    let denials = denials(Telling::None, 1000);
    deny(&denials, "192.0.2.1", CODE, at(0));
    assert_eq!(all(&denials.take(9, Rest::Now, at(1))), 0);
}
