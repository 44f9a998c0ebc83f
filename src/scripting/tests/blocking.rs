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
    // This runtime has one thread, so the timer fires only if the call runs on another thread.
    let message = loop {
        tokio::select! {
            outcome = &mut call => break detail(outcome),
            () = tokio::time::sleep(Duration::from_millis(10)) => ticks += 1,
        }
    };
    assert!(message.contains("too long"), "{message}");
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
    // Call b waited for its full time limit without a slot, or got a slot and was stopped.
    assert!(b.is_err());
    let (outcome, elapsed) = c;
    assert!(detail(outcome).contains("too busy"));
    assert!(elapsed < Duration::from_millis(300), "{elapsed:?}");
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
    let cancelled = tokio::time::timeout(Duration::from_millis(50), script.on_request(&spin)).await;
    assert!(cancelled.is_err());
    assert!(detail(script.on_request(&req()).await).contains("too busy"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    script.on_request(&req()).await.unwrap();
}
