//! With `detail = "uniform"`, a denial that depends on the credential waits for the next tick of
//! the timer, for every reason of the denial. Other responses do not wait. (`benches/uniform.rs`
//! measures real response times.)

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use keyward::{
    ClientSource, GuardLayer,
    accounts::AccountError,
    model::{Actor, Application, Detail, Entropy, KeyText},
};
use tokio::time::Instant;

use crate::{
    faces::fixture::{Fixture, send_through},
    harness::credential,
};

/// The time until the response, and the status of the response. The tests pause tokio's clock, so
/// time passes only while a response waits for the timer.
async fn time_and_status(layer: &GuardLayer, credential: &str) -> (Duration, u16) {
    let request = Request::get("/").header("api-key", credential).body(Full::default()).unwrap();
    let started = Instant::now();
    let (response, _) = send_through(layer, request).await;
    (started.elapsed(), response.status().as_u16())
}

async fn set_detail(fixture: &Fixture, detail: Detail) {
    let change = |application: &mut Application| {
        application.detail = detail;
        Ok::<_, AccountError>(())
    };
    fixture.accounts.as_actor(Actor::Program).change("default", None, change).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_uniform_denial_waits_for_the_next_tick() {
    let fixture = Fixture::new().await;
    let [expired, network_bound, _, _, revoked, blocked] = fixture.restricted_credentials().await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let unissued = KeyText::generate("kw", &Entropy::seeded(99)).text;
    let unissued = unissued.expose();
    let denied = [
        expired,
        network_bound,
        revoked,
        blocked,
        credential("ada", unissued),
        credential("nobody", unissued),
        credential("ada", "a key of another system"),
    ];
    for detail in [Detail::Exact, Detail::Uniform] {
        set_detail(&fixture, detail).await;
        for credential in &denied {
            let (time, status) = time_and_status(&layer, credential).await;
            let is_expected = match detail {
                Detail::Exact => time.is_zero() && [401, 403, 404].contains(&status),
                Detail::Uniform => time == Duration::from_millis(1) && status == 401,
            };
            assert!(is_expected, "{detail:?} {credential} {time:?} {status}");
        }
        // The responses to a valid and to a malformed credential do not wait.
        assert_eq!(time_and_status(&layer, &fixture.ada).await, (Duration::ZERO, 200));
        assert_eq!(time_and_status(&layer, "!").await, (Duration::ZERO, 401));
    }
}
