//! Where no details are told, every refusal of a credential waits for the clock to turn, whatever the reason; nothing else does. (What the clock shows from
//! outside is measured by `benches/uniform.rs`.)

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use keyward::{
    Layer,
    accounts::AccountError,
    model::{Actor, Application, Detail, Entropy, KeyText},
};
use tokio::time::Instant;

use crate::{
    faces::rig::{House, ask},
    harness::credential,
};

/// How long an answer waits, on a clock that stands still but for who waits for it; and its status.
async fn waits(layer: &Layer, credential: &str) -> (Duration, u16) {
    let request = Request::get("/").header("api-key", credential).body(Full::default()).unwrap();
    let begun = Instant::now();
    let (response, _) = ask(layer, request).await;
    (begun.elapsed(), response.status().as_u16())
}

async fn tell(house: &House, detail: Detail) {
    let change = |one: &mut Application| {
        one.detail = detail;
        Ok::<_, AccountError>(())
    };
    house.accounts.acting(Actor::Program).change("default", None, change).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_refusal_waits_for_the_same_turn() {
    let house = House::new().await;
    let [expired, afar, _, _, revoked, blocked] = house.others().await;
    let layer = Layer::new(house.gate.clone()).requires_user();
    let nobody = KeyText::generate("kw", &Entropy::seeded(99)).text;
    let nobody = nobody.expose();
    let refused = [
        expired,
        afar,
        revoked,
        blocked,
        credential("ada", nobody),
        credential("nobody", nobody),
        credential("ada", "a key of another system"),
    ];
    for detail in [Detail::Exact, Detail::Uniform] {
        tell(&house, detail).await;
        for credential in &refused {
            let (time, status) = waits(&layer, credential).await;
            let is_right = match detail {
                Detail::Exact => time.is_zero() && [401, 403, 404].contains(&status),
                Detail::Uniform => time == Duration::from_millis(1) && status == 401,
            };
            assert!(is_right, "{detail:?} {credential} {time:?} {status}");
        }
        // Who is right waits for nothing, and neither does what no key is wrong with.
        assert_eq!(waits(&layer, &house.ada).await, (Duration::ZERO, 200));
        assert_eq!(waits(&layer, "!").await, (Duration::ZERO, 401));
    }
}
