//! Tests of consecutive calls of a function on a thread: no state of one call is visible in the
//! next call.

use super::*;

fn auth_script(set: &ScriptSet, script: &str) -> Script {
    set.auth(script).unwrap().clone()
}

#[tokio::test]
async fn constant_argument_is_not_kept_for_the_next_call() {
    // A constant is read-only, even if a function returns it.
    let text = "const ADA = #{ user: \"ada\" };
        fn decode(req, presented) { if presented == \"ada\" { ADA } else { #{ user: presented } } }
        fn verify(req, user, credential) { credential.user += \"!\"; credential.user == \"ada!\" }";
    let folder = Folder::of(&[("auth/odd.rhai", text)]);
    let scripts = folder.load().unwrap();
    let script = auth_script(&scripts.current(), "odd");
    for presented in ["ada", "bob", "ada", "ada", "bob"] {
        let claim = script.decode(&req(), presented).await.unwrap();
        let verdict = script.verify(&req(), &llama(), &claim).await.unwrap();
        let is_ada = matches!(verdict, VerifyResult::Match(_));
        assert_eq!(is_ada, presented == "ada", "{presented}");
    }
}

#[tokio::test]
async fn aborted_call_leaves_no_state() {
    let text = "fn on_permit(req, identity, resource) {
            let way = req.param(\"way\");
            let sum = 0;
            for n in 0..1000 { let half = n; if n > 900 { let left = way;
                if way == \"throw\" { throw \"out\" }
                if way == \"deny\" { deny(403, \"NO\", \"No.\") }
                if way == \"return\" { return false }
                if way == \"exit\" { exit(false) }
                if way == \"wrong\" { half.to_upper() }
                if way == \"spin\" { loop {} }
                if way == \"deep\" { down(100) }
            } sum += n; }
            sum == 499500 && req.path == \"/orders\"
        }
        fn down(n) { down(n - 1) }";
    let folder = Folder::of(&[("hooks.rhai", text)]);
    let limits = ScriptLimits { operations: 20_000, strikes: 100, ..limits() };
    let scripts = folder.load_with(limits, host()).unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnPermit, None).next().unwrap();
    let permit = async |way: &str| {
        let req = req().changed(|parts| parts.query = Some(format!("way={way}")));
        script.on_permit(&req, &llama_identity(), &resource()).await
    };
    for way in ["throw", "deny", "return", "exit", "wrong", "spin", "deep"] {
        let outcome = permit(way).await;
        assert_eq!(matches!(outcome, Ok(PermitResult::Refused)), ["return", "exit"].contains(&way));
        assert!(!matches!(outcome, Ok(PermitResult::Granted)), "{way}: {outcome:?}");
        // The full budget is available again, and no variable remains.
        for _ in 0..3 {
            assert_eq!(permit("on").await.unwrap(), PermitResult::Granted, "after {way}");
        }
    }
}

#[tokio::test]
async fn state_of_one_request_is_not_visible_to_the_next() {
    let text = "fn on_permit(req, identity, resource) {
            let seen = req.get(\"note\");
            req.set(\"note\", req.path);
            identity = 1; resource = req.path; req = #{ path: \"/forged\" };
            seen == ()
        }";
    let folder = Folder::of(&[("hooks.rhai", text)]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnPermit, None).next().unwrap();
    for _ in 0..3 {
        let outcome = script.on_permit(&req(), &llama_identity(), &resource()).await;
        assert_eq!(outcome.unwrap(), PermitResult::Granted);
    }
}

#[tokio::test]
async fn request_is_dropped_after_its_call() {
    let folder = Folder::of(&[(
        "hooks.rhai",
        "fn on_permit(req, identity, resource) { let other = identity; true }",
    )]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnPermit, None).next().unwrap();
    let identity = llama_identity();
    script.on_permit(&req(), &identity, &resource()).await.unwrap();
    assert_eq!(Arc::strong_count(&identity.0), 1);
}
