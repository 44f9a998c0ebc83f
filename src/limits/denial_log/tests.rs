//! Tests of the denial log: many denials at once, over a day, and while nobody takes entries out.

use super::*;

const CODE: Cow<'static, str> = Cow::Borrowed("AUTHENTICATION_FAILED");

/// A time, in seconds after the beginning of a minute.
fn at(second: u64) -> Now {
    let start = 1_000_020;
    Now { ticks: (start + second) * SECOND, time: Timestamp((start + second) as i64) }
}

fn denial_log(logging: DenialLogging, per_day: u64) -> DenialLog {
    DenialLog::new(DenialLimits { logging, per_day })
}

fn deny(denials: &DenialLog, client: &str, code: impl Into<Cow<'static, str>>, now: Now) {
    let client = client.parse().unwrap();
    let object = Object::Resource("r");
    let subject = Subject::default();
    let application = Some("default");
    let code = &code.into();
    let denial = DeniedRequest { code, status: 401, client, object, application, subject };
    denials.count(denial, now);
}

/// The number of denials that the entries and the summary represent.
fn represented(pending: &PendingDenials) -> u64 {
    let entries: u64 = pending.entries.iter().map(|entry| entry.times).sum();
    entries + pending.summary.as_ref().map_or(0, |summary| summary.times)
}

#[test]
fn first_denial_of_a_kind_and_then_every_hundredth_is_logged() {
    let denials = denial_log(DenialLogging::Sampled(100), 1000);
    for _ in 0..250 {
        deny(&denials, "192.0.2.1", CODE, at(0));
    }
    let times = |pending: &PendingDenials| -> Vec<u64> {
        pending.entries.iter().map(|entry| entry.times).collect()
    };
    let pending = denials.take(100, SummaryDue::WhenDue, at(1));
    assert_eq!(times(&pending), [1, 100, 100]);
    // The next three denials are logged: two are of new kinds, and the third is of the first kind,
    // whose sampling starts again in the next minute. The entry of the third denial also represents
    // the 49 denials of the first kind that were only counted.
    deny(&denials, "192.0.2.2", CODE, at(2));
    deny(&denials, "192.0.2.1", "OTHER", at(2));
    deny(&denials, "192.0.2.1", CODE, at(60));
    let pending = denials.take(100, SummaryDue::WhenDue, at(60));
    assert_eq!(times(&pending), [1, 1, 50]);
    // All addresses of an IPv6 network count as one client.
    deny(&denials, "2001:db8::1", CODE, at(61));
    deny(&denials, "2001:db8::2", CODE, at(61));
    assert_eq!(denials.take(100, SummaryDue::WhenDue, at(62)).entries.len(), 1);
}

#[test]
fn many_denials_are_counted_in_bounded_memory_and_entries() {
    for logging in [DenialLogging::All, DenialLogging::Sampled(100)] {
        let denials = denial_log(logging, 400);
        let (mut total, mut entries) = (0, 0);
        for second in 0..200 {
            for number in 0..1000_u32 {
                let client = std::net::Ipv4Addr::from(number * 7919 + second).to_string();
                deny(&denials, &client, format!("CODE_{}", number % 40), at(second.into()));
            }
            let pending = denials.take(usize::MAX, SummaryDue::WhenDue, at(second.into()));
            total += represented(&pending);
            entries += pending.entries.len() + usize::from(pending.summary.is_some());
        }
        let kinds: usize = denials.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(kinds <= SHARDS * MAX_KINDS_PER_SHARD, "{kinds}");
        let last = denials.take(usize::MAX, SummaryDue::Now, at(200));
        assert_eq!(total + represented(&last), 200_000, "{logging:?}");
        let summary = last.summary.unwrap();
        assert_eq!(summary.codes.len(), MAX_SUMMARY_CODES);
        // The limit is 400 entries per day. A quarter of these entries (100) is available at once.
        // The other 300 entries become available evenly over the day, one every 288 seconds, so the
        // 200 seconds of this test allow at most one more entry.
        assert!((100..=101).contains(&entries), "{entries}");
    }
}

#[test]
fn entries_per_day_are_limited() {
    let denials = denial_log(DenialLogging::All, 400);
    let mut entries = 0;
    for second in (0..24 * 3600).step_by(20) {
        deny(&denials, "192.0.2.1", CODE, at(second));
        entries += denials.take(usize::MAX, SummaryDue::WhenDue, at(second)).entries.len();
    }
    assert!((399..=400).contains(&entries), "{entries}");
}

#[test]
fn denials_beyond_the_queue_length_are_summarised_and_denials_put_back_are_kept() {
    let denials = denial_log(DenialLogging::All, 100_000);
    for _ in 0..5000 {
        deny(&denials, "192.0.2.1", CODE, at(0));
    }
    let pending = denials.take(usize::MAX, SummaryDue::Now, at(1));
    assert_eq!((pending.entries.len(), represented(&pending)), (QUEUE_LENGTH, 5000));
    deny(&denials, "192.0.2.1", CODE, at(2));
    denials.put_back(pending);
    let again = denials.take(usize::MAX, SummaryDue::WhenDue, at(3));
    assert_eq!((again.entries.len(), represented(&again)), (QUEUE_LENGTH, 5001));
    assert_eq!(represented(&denials.take(usize::MAX, SummaryDue::Now, at(3))), 0);
}

#[test]
fn summary_is_due_once_an_hour() {
    let denials = denial_log(DenialLogging::All, 4);
    for second in [0, 1, 2, 10, 3599, 3600, 3700] {
        deny(&denials, "192.0.2.1", CODE, at(second));
    }
    let first = denials.take(9, SummaryDue::WhenDue, at(3700)).summary.unwrap();
    assert_eq!((first.times, first.since, first.until), (6, at(1).time, at(3700).time));
    deny(&denials, "192.0.2.1", CODE, at(3701));
    assert!(denials.take(9, SummaryDue::WhenDue, at(3702)).summary.is_none());
    assert!(denials.take(9, SummaryDue::WhenDue, at(7400)).summary.is_some());
}

#[test]
fn nothing_is_logged_if_logging_is_off() {
    let denials = denial_log(DenialLogging::None, 1000);
    deny(&denials, "192.0.2.1", CODE, at(0));
    assert_eq!(represented(&denials.take(9, SummaryDue::Now, at(1))), 0);
}
