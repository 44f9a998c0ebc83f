//! Tests of blocking scripts.

use std::time::Instant;

use super::*;

const TEXT: &str = "const BLOCKING = true;
    fn on_request(req) { if req.param(\"spin\") != () { loop {} } }";

fn spin() -> ScriptRequest {
    req().changed(|parts| parts.query = Some("spin".into()))
}

#[tokio::test]
async fn blocking_script_blocks_no_async_thread() {
    let limits = ScriptLimits {
        blocking_time: Duration::from_millis(300),
        blocking_operations: u64::MAX,
        ..limits()
    };
    let folder = Folder::of(&[("hooks.rhai", TEXT)]);
    let scripts = folder.load_with(limits, host()).unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnRequest, None).next().unwrap();
    assert!(script.is_blocking());
    script.on_request(&req()).await.unwrap();
    let mut ticks = 0;
    let (spin, req) = (spin(), req());
    let call = script.on_request(&spin);
    tokio::pin!(call);
    // This runtime has one thread: it ticks only if the call is on another.
    let said = loop {
        tokio::select! {
            outcome = &mut call => break detail(outcome),
            () = tokio::time::sleep(Duration::from_millis(10)) => ticks += 1,
        }
    };
    assert!(said.contains("too long"), "{said}");
    assert!(ticks >= 3, "{ticks}");
    script.on_request(&req).await.unwrap();
}

#[tokio::test]
async fn pool_and_queue_are_bounded() {
    let limits = ScriptLimits {
        blocking_time: Duration::from_millis(400),
        blocking_operations: u64::MAX,
        blocking_calls: 1,
        blocking_queue: 1,
        strikes: 100,
        ..limits()
    };
    let folder = Folder::of(&[("hooks.rhai", TEXT)]);
    let scripts = folder.load_with(limits, host()).unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnRequest, None).next().unwrap();
    let start = Instant::now();
    let (a, b, c) = (spin(), spin(), spin());
    let (a, b, c) = tokio::join!(script.on_request(&a), script.on_request(&b), async {
        let outcome = script.on_request(&c).await;
        (outcome, start.elapsed())
    });
    assert!(detail(a).contains("too long"));
    // The call waited for its full time limit without a slot, or got one and was stopped.
    assert!(b.is_err());
    let (refused, after) = c;
    assert!(detail(refused).contains("too busy"));
    assert!(after < Duration::from_millis(300), "{after:?}");
    // All slots are free afterwards.
    script.on_request(&req()).await.unwrap();
}

#[tokio::test]
async fn cancelled_call_keeps_its_slot_until_it_ends() {
    let limits = ScriptLimits {
        blocking_time: Duration::from_millis(300),
        blocking_operations: u64::MAX,
        blocking_calls: 1,
        blocking_queue: 0,
        ..limits()
    };
    let folder = Folder::of(&[("hooks.rhai", TEXT)]);
    let scripts = folder.load_with(limits, host()).unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnRequest, None).next().unwrap();
    let spin = spin();
    let left = tokio::time::timeout(Duration::from_millis(50), script.on_request(&spin)).await;
    assert!(left.is_err());
    assert!(detail(script.on_request(&req()).await).contains("too busy"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    script.on_request(&req()).await.unwrap();
}
