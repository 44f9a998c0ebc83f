//! Times, durations and time zones.

use std::cell::RefCell;

use jiff::{Timestamp, tz::TimeZone};
use rhai::{Dynamic, INT, Module, NativeCallContext, exported_module};

use super::{Checked, Map};
use crate::{
    model,
    scripting::runtime::context::{CallContext, runtime_error},
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

fn timestamp(seconds: INT) -> Checked<Timestamp> {
    // Slightly less than jiff's range, so that the time is valid in every time zone.
    const FIRST: INT = -62_167_132_800;
    const LAST: INT = 253_402_207_200;
    match seconds {
        FIRST..=LAST => Timestamp::from_second(seconds)
            .map_err(|_| runtime_error("the number of seconds is not a valid time")),
        _ => Err(runtime_error("the time is not within the years 0 to 9999")),
    }
}

thread_local! {
    /// A cache of the local time in some time zones. All entries are for the current second.
    static LOCAL_TIMES: RefCell<Vec<(String, INT, Map)>> = const { RefCell::new(Vec::new()) };
}

/// The maximum number of time zones in a thread's cache.
const MAX_ZONES: usize = 8;

/// Like [`functions::local_time`], but with a cache.
fn cached_local_time(zone: &str, seconds: INT) -> Checked<Map> {
    let is_current = |(name, second, _): &&(String, INT, Map)| *second == seconds && name == zone;
    let cached =
        LOCAL_TIMES.with_borrow(|cache| cache.iter().find(is_current).map(|(.., map)| map.clone()));
    if let Some(map) = cached {
        return Ok(map);
    }
    let map = functions::local_time(zone, seconds)?;
    LOCAL_TIMES.with_borrow_mut(|cache| {
        cache.retain(|(_, second, _)| *second == seconds);
        if cache.len() < MAX_ZONES {
            cache.push((zone.to_owned(), seconds, map.clone()));
        }
    });
    Ok(map)
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// The current time, in seconds since 1970-01-01T00:00:00Z.
    ///
    /// Example: `now() - issued < duration("5m")`
    #[rhai_fn(volatile, return_raw)]
    pub fn now(context: NativeCallContext) -> Checked<INT> {
        Ok(CallContext::current(&context)?.host.clock.now().0)
    }

    /// Parses an RFC 3339 time into seconds. `()` means the text is invalid.
    ///
    /// Example: `parse_time("2026-01-05T12:00:00Z") == 1767614400`
    pub fn parse_time(text: &str) -> Dynamic {
        model::Timestamp::parse(text).map_or(Dynamic::UNIT, |at| at.0.into())
    }

    /// Parses an HTTP date (RFC 9110, section 5.6.7) into seconds. `()` means the text is invalid.
    ///
    /// Example: `let sent = parse_http_date(req.header("Date"));`
    pub fn parse_http_date(text: &str) -> Dynamic {
        // The pattern requires an offset, and an HTTP date is always in GMT.
        let Some(text) = text.strip_suffix(" GMT") else { return Dynamic::UNIT };
        let text = format!("{text} +0000");
        let at = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S %z", text);
        at.and_then(|at| at.to_timestamp()).map_or(Dynamic::UNIT, |at| at.as_second().into())
    }

    /// Formats a time as RFC 3339 in UTC.
    ///
    /// Error: the year is not within 0 to 9999.
    ///
    /// Example: `format_time(0) == "1970-01-01T00:00:00+00:00"`
    #[rhai_fn(return_raw)]
    pub fn format_time(seconds: INT) -> Checked<String> {
        timestamp(seconds)?;
        Ok(model::Timestamp(seconds).to_string())
    }

    /// Parses a duration into seconds. A duration consists of one or more whole numbers, each with
    /// the unit `s`, `m`, `h`, `d` or `w`.
    ///
    /// Error: the text is not a duration.
    ///
    /// Example: `duration("1h30m") == 5400`
    #[rhai_fn(return_raw)]
    pub fn duration(text: &str) -> Checked<INT> {
        let wrong =
            || runtime_error("a duration must be written like 90s, 15m, 2h, 7d, 1w or 1h30m");
        let mut total: INT = 0;
        let mut number: Option<INT> = None;
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let shifted = number.unwrap_or(0).checked_mul(10);
                number = Some(shifted.and_then(|n| n.checked_add(digit.into())).ok_or_else(wrong)?);
                continue;
            }
            let unit = match c {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                'w' => 604_800,
                _ => return Err(wrong()),
            };
            let part = number.take().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
        }
        if number.is_some() || text.is_empty() { Err(wrong()) } else { Ok(total) }
    }

    /// The current local time in a time zone (an IANA name), as a map of `year`, `month`, `day`,
    /// `hour`, `minute`, `second` and `weekday` (1 is Monday, 7 is Sunday).
    ///
    /// Error: there is no such time zone.
    ///
    /// Example: `let here = local_time("Europe/Berlin"); if here.weekday > 5 { deny(403, "WEEKEND",
    /// "We rest."); }`
    #[rhai_fn(name = "local_time", volatile, return_raw)]
    pub fn local_time_now(context: NativeCallContext, zone: &str) -> Checked<Map> {
        cached_local_time(zone, CallContext::current(&context)?.host.clock.now().0)
    }

    /// The local time in a time zone at a given time, as a map with the fields of
    /// `local_time(zone)`.
    ///
    /// Example: `local_time("UTC", 0).year == 1970`
    #[rhai_fn(name = "local_time", return_raw)]
    pub fn local_time(zone: &str, seconds: INT) -> Checked<Map> {
        let zone = TimeZone::get(zone).map_err(|_| {
            runtime_error("there is no such time zone; use a name like Europe/Berlin")
        })?;
        let at = timestamp(seconds)?.to_zoned_datetime(zone);
        let parts: [(&str, INT); 7] = [
            ("year", at.year().into()),
            ("month", at.month().into()),
            ("day", at.day().into()),
            ("hour", at.hour().into()),
            ("minute", at.minute().into()),
            ("second", at.second().into()),
            ("weekday", at.weekday().to_monday_one_offset().into()),
        ];
        let parts = parts.into_iter().map(|(name, value)| (name.into(), value.into()));
        Ok(Dynamic::from_map(parts.collect()))
    }
}
