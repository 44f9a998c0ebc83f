//! Rate limits, replay protection, networks, regular expressions, and the log.

use crate::model::Mode;
use std::{cell::RefCell, hash::BuildHasher as _, net::IpAddr};

use ipnet::IpNet;
use rhai::{Dynamic, INT, Module, NativeCallContext, exported_module};

use super::Checked;
use crate::scripting::runtime::{
    budget,
    context::{CallContext, runtime_error},
    rate_limiter::BucketRate,
    replay_cache::ReplayCheck,
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// A thread's cache of parsed networks, because scripts use the same ones in each call.
struct Networks {
    places: [Option<(String, IpNet)>; 64],
    hash: foldhash::fast::RandomState,
}

thread_local! {
    static NETWORKS: RefCell<Networks> = RefCell::new(Networks {
        places: [const { None }; 64],
        hash: foldhash::fast::RandomState::default(),
    });
}

/// A network, or an address as a network with one address.
fn network(text: &str) -> Option<IpNet> {
    let read = || text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    // The text of a network is never longer.
    if text.len() > 64 {
        return read();
    }
    NETWORKS.with_borrow_mut(|known| {
        let at = known.hash.hash_one(text) as usize % known.places.len();
        let place = &mut known.places[at];
        match place {
            Some((name, network)) if name == text => Some(*network),
            _ => {
                let network = read()?;
                *place = Some((text.to_owned(), network));
                Some(network)
            }
        }
    })
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Whether one more call is within `count` per `seconds` for this bucket, a name chosen by the
    /// script. A refused call does not count.
    ///
    /// While the table of buckets is full, a new bucket is over its limit.
    ///
    /// Example: `if !rate_limit("login:" + req.client, 5, 60) { deny(429, "TOO_MANY", "Wait a
    /// minute."); }`
    #[rhai_fn(volatile, return_raw)]
    pub fn rate_limit(
        context: NativeCallContext,
        bucket: &str,
        count: INT,
        seconds: INT,
    ) -> Checked<bool> {
        let (Ok(count), Ok(seconds)) = (u64::try_from(count), u64::try_from(seconds)) else {
            return Err(runtime_error("rate_limit needs a count and seconds from 1"));
        };
        if !(1..=1_000_000).contains(&count) || !(1..=86_400 * 31).contains(&seconds) {
            return Err(runtime_error("rate_limit takes 1 to 1000000 in 1 to 2678400 seconds"));
        }
        let call = CallContext::current(&context)?;
        let host = &call.host;
        let (rate, now) = (BucketRate { count, seconds }, host.milliseconds());
        Ok(match host.mode {
            Mode::Live => host.rate_limiter.admit(bucket, rate, now),
            Mode::DryRun => host.rate_limiter.would_admit(bucket, rate, now),
        })
    }

    /// Whether this id is seen for the first time in `seconds` (1 to 604800). No id is evicted
    /// early: while the table is full, a new id counts as seen.
    ///
    /// Example: `if !once("hmac:" + nonce, 300) { deny(401, "REPLAYED", "The request was sent
    /// before."); }`
    #[rhai_fn(volatile, return_raw)]
    pub fn once(context: NativeCallContext, id: &str, seconds: INT) -> Checked<bool> {
        if !(1..=604_800).contains(&seconds) {
            return Err(runtime_error("once takes 1 to 604800 seconds"));
        }
        let call = CallContext::current(&context)?;
        let host = &call.host;
        let now = host.clock.now().0;
        let outcome = match host.mode {
            Mode::Live => host.replay_cache.once(id, seconds, now),
            Mode::DryRun => host.replay_cache.peek(id, now),
        };
        if outcome == ReplayCheck::Full {
            tracing::warn!(
                "the table of once() is full: new ids are refused; raise scripts.replay_ids"
            );
        }
        Ok(outcome == ReplayCheck::New)
    }

    /// Whether an address is in a network, or in one of an array of networks. An IPv4-mapped IPv6
    /// address is treated as IPv4.
    ///
    /// An invalid address, or `()`, is in no network. Error: an invalid network.
    ///
    /// Example: `in_network(req.client, ["10.0.0.0/8", "fd00::/8"])`
    #[rhai_fn(return_raw)]
    pub fn in_network(address: Dynamic, networks: Dynamic) -> Checked<bool> {
        let address = address.as_immutable_string_ref();
        let address = address.ok().and_then(|address| address.parse::<IpAddr>().ok());
        let address = address.map(|address| address.to_canonical());
        let one = |text: &Dynamic| -> Checked<bool> {
            let text =
                text.as_immutable_string_ref().map_err(|_| runtime_error("a network is a text"))?;
            let network = network(&text)
                .ok_or_else(|| runtime_error("a network is written like 10.0.0.0/8 or fd00::/8"))?;
            Ok(address.as_ref().is_some_and(|address| network.contains(address)))
        };
        if networks.is_string() {
            return one(&networks);
        }
        let many = networks
            .as_array_ref()
            .map_err(|_| runtime_error("networks are a text or an array"))?;
        let mut is_in = false;
        // All are parsed, so that a mistake in the last one shows with the first request.
        for network in many.iter() {
            is_in |= one(network)?;
        }
        Ok(is_in)
    }

    /// Whether a regular expression matches in a text of at most 8192 bytes. The time is linear in
    /// the text's length.
    ///
    /// Use `^…$` to match the whole text. Look-around and back-references are not supported.
    ///
    /// Error: the pattern is invalid or too large, or the text is too long.
    ///
    /// Example: `matches(req.path, "^/tenants/[a-z0-9]+/")`
    #[rhai_fn(return_raw)]
    pub fn matches(context: NativeCallContext, text: &str, pattern: &str) -> Checked<bool> {
        const MOST: usize = 8192;
        if text.len() > MOST {
            return Err(runtime_error(format!("matches() takes a text of at most {MOST} bytes")));
        }
        CallContext::current(&context)?.host.regexes.is_match(pattern, text).map_err(runtime_error)
    }

    /// Writes a line into Keyward's log. A call may write 32 lines; further ones are dropped. Never
    /// log a credential: the presented credential is redacted, but values derived from it are not.
    ///
    /// Example: `log("no tenant for " + identity.name);`
    #[rhai_fn(name = "log", volatile, return_raw)]
    pub fn log(context: NativeCallContext, text: &str) -> Checked<()> {
        log_at(context, "info", text)
    }

    /// Writes a line with a level: `"debug"`, `"info"`, `"warn"` or `"error"`.
    ///
    /// Example: `log("warn", "the partner's clock is late");`
    #[rhai_fn(name = "log", volatile, return_raw)]
    pub fn log_at(context: NativeCallContext, level: &str, text: &str) -> Checked<()> {
        let call = CallContext::current(&context)?;
        if !["debug", "info", "warn", "error"].contains(&level) {
            return Err(runtime_error("the levels of log() are debug, info, warn and error"));
        }
        if !budget::take_log_line() {
            return Ok(());
        }
        let text: String = text.chars().take(1000).collect();
        let said = call.redact(&text);
        // Log lines of a script's tests are not about real requests.
        let level = if call.host.sandbox.is_some() { "debug" } else { level };
        let script = context.fn_source().or(context.call_source()).unwrap_or("");
        match level {
            "debug" => tracing::debug!(script, "{said}"),
            "info" => tracing::info!(script, "{said}"),
            "warn" => tracing::warn!(script, "{said}"),
            _ => tracing::error!(script, "{said}"),
        }
        Ok(())
    }
}
