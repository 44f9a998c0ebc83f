//! The progress of a command that takes long.

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::times;

/// Creates a progress bar, which is shown if standard error is a terminal:
/// `16,200 of 30,000 keys, 46,000 keys/s, 1 s left`.
pub fn bar(unit: &'static str) -> ProgressBar {
    let form = "{bar:16} {state}";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style =
        style.with_key("state", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let text = describe(
                state.pos(),
                state.len().unwrap_or_default(),
                state.per_sec(),
                state.eta().as_secs(),
                unit,
            );
            // Writing to a string cannot fail.
            let _ = out.write_str(&text);
        });
    ProgressBar::new(0).with_style(style)
}

fn describe(done: u64, all: u64, per_second: f64, left: u64, unit: &str) -> String {
    let mut text = format!("{} of {} {unit}", grouped(done), grouped(all));
    // The cast saturates, and a rate that is not a number becomes 0.
    let rate = per_second.round() as u64;
    if rate > 0 {
        let left = times::span(left.max(1).cast_signed());
        let left = left.replace(" seconds", " s").replace(" second", " s");
        let _ = write!(text, ", {} {unit}/s, {left} left", grouped(rounded(rate)));
    }
    text
}

/// A number with two significant digits, because a rate changes all the time.
fn rounded(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

/// A number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_round_numbers_and_units() {
        let text = describe(16_200, 30_000, 46_427.871_9, 0, "keys");
        assert_eq!(text, "16,200 of 30,000 keys, 46,000 keys/s, 1 s left");
        assert_eq!(describe(0, 30_000, f64::NAN, 0, "keys"), "0 of 30,000 keys");
        let text = describe(1, 1_000_000, 99.6, 7200, "users");
        assert_eq!(text, "1 of 1,000,000 users, 100 users/s, 2 hours left");
        assert_eq!(
            (grouped(7), grouped(1000), grouped(123_456)),
            ("7".into(), "1,000".into(), "123,456".into())
        );
    }
}
