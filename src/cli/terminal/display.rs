//! How output is shown: the width of the terminal, colours, and the form of times.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use clap::{Args, ValueEnum};

use crate::model::{Clock, Timestamp};

/// The width of a terminal that does not tell its width.
const DEFAULT_WIDTH: usize = 80;
/// The least width. Tables have no sensible form below it.
const MIN_WIDTH: usize = 20;

/// The options of the display, which every command has.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DisplayOptions {
    /// Show all columns of a table in full, even if the terminal is too narrow
    #[arg(long, global = true, help_heading = crate::cli::GLOBAL_OPTIONS)]
    wide: bool,
    /// The times in tables: relative (3 days ago) or absolute [default: relative in a terminal]
    #[arg(
        long, global = true, value_name = "FORM", help_heading = crate::cli::GLOBAL_OPTIONS,
        value_enum, hide_possible_values = true
    )]
    times: Option<Times>,
}

/// The form of times in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Times {
    /// Such as `3 days ago`
    Relative,
    /// Such as `2027-01-01T00:00:00Z`
    Absolute,
}

/// How output is shown.
#[derive(Debug, Clone, Copy)]
pub struct Display {
    /// The number of cells in a line. `None` means no limit.
    pub width: Option<usize>,
    /// Whether states are coloured.
    pub colours: bool,
    /// The form of times in tables.
    pub times: Times,
    /// The time to which relative times refer.
    pub now: Timestamp,
}

impl Display {
    /// The display for programs: everything in full, in plain text.
    pub fn plain() -> Self {
        let now = Clock::system().now();
        Self { width: None, colours: false, times: Times::Absolute, now }
    }

    /// The display of standard output.
    pub fn of_output(options: DisplayOptions) -> Self {
        let output = io::stdout();
        let width = terminal_width(&output);
        let by_default = if width.is_some() { Times::Relative } else { Times::Absolute };
        Self {
            width: width.filter(|_| !options.wide),
            colours: width.is_some() && has_colours(|name| std::env::var(name).ok()),
            times: options.times.unwrap_or(by_default),
            ..Self::plain()
        }
    }
}

/// The number of cells in a line of a terminal: `COLUMNS`, or the terminal's own width. `None`
/// means that the stream is not a terminal.
pub fn terminal_width(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let from_variable = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|width| *width > 0);
    let from_terminal = || {
        let size = rustix::termios::tcgetwinsize(stream).ok()?;
        Some(usize::from(size.ws_col)).filter(|width| *width > 0)
    };
    let width: Option<usize> = from_variable().or_else(from_terminal);
    Some(width.unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH))
}

/// Whether a terminal shows colours, by the variables `NO_COLOR` (<https://no-color.org>) and
/// `TERM`.
fn has_colours(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && variable("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// A colour or a weight of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Bold,
    Green,
    Yellow,
    Red,
}

impl Style {
    /// The text in this style.
    pub fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Bold => 1,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The style of a state. `None` means that the word has no style.
    pub fn of_state(state: &str) -> Option<Self> {
        match state {
            "active" | "yes" | "passed" => Some(Self::Green),
            "expired" | "rotated" | "not reached" => Some(Self::Yellow),
            "revoked" | "blocked" | "no" | "refused" | "deleted" => Some(Self::Red),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_depend_on_the_terminal_and_on_no_color() {
        let with = |variables: &[(&str, &str)]| {
            has_colours(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(&[("TERM", "xterm")]));
        assert!(with(&[("TERM", "xterm"), ("NO_COLOR", "")]));
        assert!(!with(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
        assert!(!with(&[("TERM", "dumb")]));
        assert!(!with(&[]));
    }
}
