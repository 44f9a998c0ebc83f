//! The part of the fourth room that takes its time: keys of other systems whose digests are slow to check. Each is checked so once; then it has a
//! fast digest.

use http::StatusCode;

use super::{Denial, Gate, Phase, Request, RequestContext, decode::Shown};
use crate::{
    directory::{CachedKey, SlowKeys},
    model::{KeyId, MOST_SLOW_KEYS},
};

/// The user's key with this text, if there is one.
///
/// # Errors
/// Too many are being checked.
pub(super) async fn find(
    gate: &Gate,
    scene: &RequestContext,
    request: &Request<'_>,
    text: &Shown,
    keys: SlowKeys,
) -> Result<Option<(KeyId, CachedKey)>, Denial> {
    // What is answered with 429 whether it is right or not costs nothing any more.
    if scene.ledger().is_over(request.client) {
        return Ok(None);
    }
    let SlowKeys { ids, example, most } = keys;
    let held = ids.into_iter().filter_map(|id| Some((id, gate.0.directory.key(id)?)));
    let mut held: Vec<(KeyId, CachedKey)> = held.filter(|(_, key)| key.slow().is_some()).collect();
    // However many there are: those first that may be used.
    let now = gate.0.clock.now();
    held.sort_by_key(|(_, key)| key.is_revoked || key.has_ended(now));
    held.truncate(MOST_SLOW_KEYS);
    let digests: Vec<_> = held.iter().filter_map(|(_, key)| key.slow().cloned()).collect();
    let for_time = vec![example; most.min(MOST_SLOW_KEYS).saturating_sub(digests.len())];
    let found = gate.0.passwords.find(text.to_secret(), digests, for_time).await;
    Ok(found.map_err(|_| busy())?.map(|at| held.swap_remove(at)))
}

/// The refusal while too many are being checked.
pub(super) fn busy() -> Denial {
    Denial::new(
        Phase::Verify,
        StatusCode::SERVICE_UNAVAILABLE,
        "TEMPORARILY_UNAVAILABLE",
        "Too many passwords are being checked. Try again in a moment.",
    )
    .with_retry_after(1)
}
