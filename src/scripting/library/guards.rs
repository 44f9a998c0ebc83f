//! Rate limits, replay protection, networks, regular expressions, and the log.

use crate::model::Mode;
use std::{cell::RefCell, hash::BuildHasher as _, net::IpAddr};

use ipnet::IpNet;
use rhai::{Dynamic, INT, Module, NativeCallContext, exported_module};

use super::Checked;
use crate::scripting::runtime::{
    budget,
    context::{CallContext, runtime_error, too_large},
    quota,
    rate_limiter::BucketRate,
    replay_cache::{ReplayCheck, short_digest},
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// A thread's cache of parsed networks. Scripts use the same networks in each call.
struct Networks {
    slots: [Option<(String, IpNet)>; 64],
    hash: foldhash::fast::RandomState,
}

thread_local! {
    static NETWORKS: RefCell<Networks> = RefCell::new(Networks {
        slots: [const { None }; 64],
        hash: foldhash::fast::RandomState::default(),
    });
}

/// Parses a network. A single address counts as a network with one address.
fn network(text: &str) -> Option<IpNet> {
    let parse = || text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    // The text of a valid network is never longer, so longer texts are not cached.
    if text.len() > 64 {
        return parse();
    }
    NETWORKS.with_borrow_mut(|cache| {
        let index = cache.hash.hash_one(text) as usize % cache.slots.len();
        let slot = &mut cache.slots[index];
        match slot {
            Some((cached, network)) if cached == text => Some(*network),
            _ => {
                let network = parse()?;
                *slot = Some((text.to_owned(), network));
                Some(network)
            }
        }
    })
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Whether one more call for this bucket is within the limit of `count` calls in `seconds`. The
    /// script chooses the name of the bucket. A refused call does not count.
    ///
    /// Each script may use a quarter of the table of buckets, and each client half of this quarter.
    /// While this share is full, calls for new buckets are refused.
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
            return Err(runtime_error(
                "rate_limit needs a count and a number of seconds, both at least 1",
            ));
        };
        if !(1..=1_000_000).contains(&count) || !(1..=86_400 * 31).contains(&seconds) {
            return Err(runtime_error(
                "rate_limit takes a count of 1 to 1000000 and 1 to 2678400 seconds",
            ));
        }
        let call = CallContext::current(&context)?;
        let host = &call.host;
        let (rate, now) = (BucketRate { count, seconds }, host.milliseconds());
        Ok(match host.mode {
            Mode::Live => host.rate_limiter.admit(bucket, rate, now, quota::owner()),
            Mode::DryRun => host.rate_limiter.would_admit(bucket, rate, now, quota::owner()),
        })
    }

    /// Returns whether this id is new, and remembers a new id for `seconds` (1 to 604800). No id is
    /// forgotten early, except if the function that Keyward called fails or denies the request:
    /// then the ids of this call are forgotten.
    ///
    /// Each script may use a quarter of the table of ids, and each client half of this quarter.
    /// While this share is full, no id counts as new.
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
        let (digest, owner) = (short_digest(id), quota::owner());
        let outcome = match host.mode {
            Mode::Live => host.replay_cache.once(digest, seconds, now, owner),
            Mode::DryRun => host.replay_cache.peek(digest, now, owner),
        };
        match outcome {
            ReplayCheck::Full => tracing::warn!(
                script = context.fn_source().or(context.call_source()).unwrap_or(""),
                "the share of this script or of this client in the table of once() is full: new ids are refused; raise scripts.replay_ids"
            ),
            ReplayCheck::New if host.mode == Mode::Live => quota::note_entered(digest),
            ReplayCheck::New | ReplayCheck::Seen => {}
        }
        Ok(outcome == ReplayCheck::New)
    }

    /// Whether an address is in a network, or in at least one network of an array. An IPv4-mapped
    /// IPv6 address is treated as IPv4.
    ///
    /// An invalid address, or `()`, is in no network. Error: a network is invalid.
    ///
    /// Example: `in_network(req.client, ["10.0.0.0/8", "fd00::/8"])`
    #[rhai_fn(return_raw)]
    pub fn in_network(address: Dynamic, networks: Dynamic) -> Checked<bool> {
        let address = address.as_immutable_string_ref();
        let address = address.ok().and_then(|address| address.parse::<IpAddr>().ok());
        let address = address.map(|address| address.to_canonical());
        let contains_address = |text: &Dynamic| -> Checked<bool> {
            let text = text
                .as_immutable_string_ref()
                .map_err(|_| runtime_error("a network must be a text"))?;
            let network = network(&text).ok_or_else(|| {
                runtime_error("a network must be written like 10.0.0.0/8 or fd00::/8")
            })?;
            Ok(address.as_ref().is_some_and(|address| network.contains(address)))
        };
        if networks.is_string() {
            return contains_address(&networks);
        }
        let networks = networks
            .as_array_ref()
            .map_err(|_| runtime_error("networks must be a text or an array"))?;
        let mut is_in = false;
        // All networks are parsed, even after a match. So the first request already reports an
        // invalid network.
        for network in networks.iter() {
            is_in |= contains_address(network)?;
        }
        Ok(is_in)
    }

    /// Whether a regular expression matches somewhere in a text of at most 8192 bytes. The time of
    /// the match is proportional to the length of the text.
    ///
    /// Use `^…$` to match the whole text. Look-around and back-references are not supported.
    ///
    /// Error: the pattern is invalid or too large. A text that is too long denies the request.
    ///
    /// Example: `matches(req.path, "^/tenants/[a-z0-9]+/")`
    #[rhai_fn(return_raw)]
    pub fn matches(context: NativeCallContext, text: &str, pattern: &str) -> Checked<bool> {
        const MAX_BYTES: usize = 8192;
        if text.len() > MAX_BYTES {
            return Err(too_large(format!(
                "a text for matches(), which takes at most {MAX_BYTES} bytes"
            )));
        }
        CallContext::current(&context)?.host.regexes.is_match(pattern, text).map_err(runtime_error)
    }

    /// Writes a line into Keyward's log. A call may write 32 lines; further lines are dropped.
    /// Never log a credential. Keyward redacts the presented credential, but not values that the
    /// script derives from it.
    ///
    /// Example: `log("no tenant for " + identity.name);`
    #[rhai_fn(name = "log", volatile, return_raw)]
    pub fn log(context: NativeCallContext, text: &str) -> Checked<()> {
        log_at(context, "info", text)
    }

    /// Writes a line into Keyward's log with this level: `"debug"`, `"info"`, `"warn"` or
    /// `"error"`.
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
        let redacted = call.redact(&text);
        if let Some(sandbox) = &call.host.sandbox {
            sandbox.add_log(format!("{level}: {redacted}"));
        }
        // Tests of scripts log with the level `debug`, because their lines do not concern requests.
        let level = if call.host.sandbox.is_some() { "debug" } else { level };
        let script = context.fn_source().or(context.call_source()).unwrap_or("");
        match level {
            "debug" => tracing::debug!(script, "{redacted}"),
            "info" => tracing::info!(script, "{redacted}"),
            "warn" => tracing::warn!(script, "{redacted}"),
            _ => tracing::error!(script, "{redacted}"),
        }
        Ok(())
    }
}
