//! The slow part of phase 4: checks imported keys whose digests are slow to compute.
//!
//! After the first successful check, the key gets a fast digest.

use http::StatusCode;

use super::{Denial, Gate, Phase, Request, RequestContext, decode::PresentedSecret};
use crate::{
    directory::{CachedKey, SlowKeys},
    model::{KeyId, MOST_SLOW_KEYS, Mode},
};

/// Finds the key that has this text. `None` means that none of the keys has this text.
///
/// # Errors
/// Too many digests are being computed at the same time.
pub(super) async fn find(
    gate: &Gate,
    context: &RequestContext,
    request: &Request<'_>,
    text: &PresentedSecret,
    user_name: &str,
    keys: SlowKeys,
) -> Result<Option<(KeyId, CachedKey)>, Denial> {
    // Above the failure limit, the response is 429 for right and wrong keys, so a check would waste
    // CPU time.
    let (counters, client) = (context.counters(), request.client);
    if counters.is_over(client) {
        return Ok(None);
    }
    let turn = gate.0.passwords.turn(client, user_name).await.map_err(|_| busy())?;
    // A check counts as a failure until it has ended: the keys that a client sends at the same time
    // must not all be checked.
    if context.mode == Mode::Live && counters.count_failure(client).is_some() {
        return Ok(None);
    }
    let SlowKeys { ids, example, max_per_user } = keys;
    let keys = ids.into_iter().filter_map(|id| Some((id, gate.0.directory.key(id)?)));
    let mut keys: Vec<(KeyId, CachedKey)> =
        keys.filter(|(_, key)| key.slow_digest().is_some()).collect();
    // Usable keys come first, so that `truncate` drops revoked and expired keys before usable keys.
    let now = gate.0.clock.now();
    keys.sort_by_key(|(_, key)| key.is_revoked || key.is_expired(now));
    keys.truncate(MOST_SLOW_KEYS);
    let digests: Vec<_> = keys.iter().filter_map(|(_, key)| key.slow_digest().cloned()).collect();
    // Decoys are copies of another key's digest. With decoys, the check takes the same time for
    // every user, however many keys with slow digests the user has.
    let decoys = vec![example; max_per_user.min(MOST_SLOW_KEYS).saturating_sub(digests.len())];
    let matching_index = turn.find_match(text.to_secret(), digests, decoys).await;
    if context.mode == Mode::Live {
        // A wrong key is counted with its denial.
        counters.uncount_failure(client);
    }
    Ok(matching_index.map_err(|_| busy())?.map(|index| keys.swap_remove(index)))
}

/// The denial while too many passwords or slow keys are being checked.
pub(super) fn busy() -> Denial {
    Denial::new(
        Phase::Verify,
        StatusCode::SERVICE_UNAVAILABLE,
        "TEMPORARILY_UNAVAILABLE",
        "Too many passwords are being checked. Try again in a moment.",
    )
    .with_retry_after(1)
}
