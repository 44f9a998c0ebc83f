//! Progress bars of commands that handle many records.

use indicatif::{ProgressBar, ProgressStyle};

/// Creates a progress bar, which is shown if standard error is a terminal.
pub(in crate::cli) fn bar(unit: &str) -> ProgressBar {
    let form = format!("{{bar:30}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    let style =
        ProgressStyle::with_template(&form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
