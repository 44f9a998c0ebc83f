//! Scripts that try to exhaust the process: each fails within its budget, and the process survives.

use std::time::Instant;

use super::*;

/// Bodies of `on_permit`, each with a part of its error message.
const HOSTILE: &[(&str, &str)] = &[
    ("loop {}", "too many steps"),
    ("while true { let x = 1; }", "too many steps"),
    ("for i in 0..1000000000 { let x = i; } true", "too many steps"),
    ("let s = \"ab\"; loop { s += s; }", "too large"),
    ("let s = \"\"; s.pad(1000000000, 'x'); true", "too large"),
    ("let a = []; loop { a.push(a); }", "too large"),
    ("let a = [0]; loop { a.append(a); }", "too large"),
    ("let a = []; a.pad(100000000, 0); true", "too large"),
    ("let b = blob(1000000000, 0); true", "too large"),
    (
        "let m = #{}; let i = 0; loop { i += 1; m[`k${i}`] = i; if m.len() < 0 { break; } }",
        "too large",
    ),
    ("let m = #{}; loop { m = #{ a: m }; }", "too large"),
    ("let a = []; loop { a = [a]; }", "too large"),
    ("let a = []; let b = []; for i in 0..900 { a = [a]; b = [b]; } a == b", "nesting"),
    ("let a = []; let b = []; for i in 0..900 { a = [a]; b = [b]; } a != b", "nesting"),
    ("let a = []; let b = []; for i in 0..900 { a = [a]; b = [b]; } [a].contains(b)", "nesting"),
    ("let a = []; let b = []; for i in 0..900 { a = [a]; b = [b]; } b in [a]", "nesting"),
    (
        "let a = []; let b = []; for i in 0..900 { a = [a]; b = [b]; } [a].index_of(b) == 0",
        "nesting",
    ),
    ("let a = #{}; for i in 0..400 { a = #{ a: a }; } a.to_json().len() > 0", "nesting"),
    (
        "let a = #{}; let b = #{}; for i in 0..400 { a = #{ a: a }; b = #{ a: b }; } a == b",
        "nesting",
    ),
    ("let a = #{}; for i in 0..400 { a = #{ a: a }; } json_text(a).len() > 0", "nested too deeply"),
    ("json_parse(\"[\"); true", "not json"),
    ("let s = \"\"; s.pad(5000, '['); json_parse(s); true", "not json"),
    ("let s = \"\"; s.pad(5000, '['); parse_json(s); true", ""),
    ("let f = Fn(\"cur\" + \"ry\"); f.call(f, 1); true", ""),
    ("Fn(\"ev\" + \"al\").call(\"true\")", ""),
    ("sleep(3600); true", "scripts cannot call sleep()"),
    ("sleep(3600.5); true", "scripts cannot call sleep()"),
    ("Fn(\"sleep\").call(3600); true", "scripts cannot call sleep()"),
    ("matches(\"aaaa\", \"(a{1000}){1000}\")", "regular expression"),
    ("matches(\"a\", \"(\")", "regular expression"),
    ("let s = \"\"; s.pad(20000, 'a'); matches(s, \"(a*)*b\")", "at most"),
    ("let i = 9223372036854775807; i + 1 > 0", "arithmetic"),
    ("1 / 0 == 1", "arithmetic"),
    ("let a = [1]; a[5] == 1", "index"),
    ("req.nothing", "nothing"),
    ("let x = (); x.name == 1", ""),
    ("test_user(#{ name: \"root\" }).is_active", "real request"),
    ("secret(\"none\").to_string() == \"\"", "no secret"),
    ("let i = 0; while i < 60 { req.set(`k${i}`, i); i += 1; } true", "at most"),
    ("req.set(\"f\", |x| x); true", "plain data"),
];

#[tokio::test]
async fn each_hostile_script_fails() {
    let mut wrong = Vec::new();
    for (body, expected) in HOSTILE {
        let start = Instant::now();
        let outcome = permit(body).await;
        let message = match &outcome {
            Err(fault) => fault.detail().unwrap_or_default(),
            Ok(_) => "",
        };
        let is_right =
            message.starts_with("hooks.rhai") && message.to_lowercase().contains(expected);
        if !is_right || start.elapsed() > Duration::from_secs(8) {
            wrong.push(format!("{body}: {outcome:?} after {:?}", start.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A value that is nested too deeply is shown as a placeholder, and does not overflow the stack.
#[tokio::test]
async fn deeply_nested_value_is_not_traversed() {
    for nested in [
        "let a = []; for i in 0..900 { a = [a]; }",
        "let a = #{}; for i in 0..400 { a = #{ a: a }; }",
    ] {
        for shown in [
            "a.to_string()",
            "a.to_debug()",
            "\"\" + a",
            "`${a}`",
            "`${[a]}`",
            "#{ a: a }.to_string()",
        ] {
            let body = format!("{nested} let text = {shown}; text.contains(\"nested too deeply\")");
            let outcome = permit(&body).await;
            assert!(matches!(outcome, Ok(PermitResult::Granted)), "{body}: {outcome:?}");
        }
        for statement in ["print(a)", "debug(a)", "let b = a; b = [b]", "let b = [a]"] {
            let outcome = permit(&format!("{nested} {statement}; true")).await;
            assert!(matches!(outcome, Ok(PermitResult::Granted)), "{statement}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn recursion_limit_is_the_same_in_every_build() {
    let depth = ScriptLimits::default().call_levels;
    let text = "fn down(n) { if n == 0 { 0 } else { 1 + down(n - 1) } }
        fn on_permit(req, identity, resource) { down(req.param(\"n\").parse_int()) > 0 }";
    let folder = Folder::of(&[("hooks.rhai", text)]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnPermit, None).next().unwrap();
    let down = async |n: usize| {
        let req = req().changed(|parts| parts.query = Some(format!("n={n}")));
        script.on_permit(&req, &llama_identity(), &resource()).await
    };
    // The count of levels begins with on_permit, and down(0) is a level, too.
    assert_eq!(down(depth - 1).await.unwrap(), PermitResult::Granted);
    assert!(detail(down(depth).await).contains("too deeply"));
    assert!(detail(down(1_000_000).await).contains("too deeply"));
}

/// Recursion up to the limit, through expressions that are nested up to the limit, fits on the
/// stack of a tokio thread.
#[test]
fn deepest_recursion_fits_on_the_stack() {
    let nested = format!("{}a{}", "1 + (".repeat(9), ")".repeat(9));
    let blocks = format!("{}BODY{}", "if true { ".repeat(6), " } else { 0 }".repeat(6));
    let bodies = [
        nested.replace('a', "down(n + 1)"),
        blocks.replace("BODY", "down(n + 1)"),
        "[n].map(|x| down(x + 1))[0]".to_owned(),
        "let a = [3, 2, 1]; a.sort(|x, y| down(x + y)); 1".to_owned(),
        "Fn(\"down\").call(n + 1)".to_owned(),
        "try { down(n + 1) } catch (e) { throw e; }".to_owned(),
        "switch n { 0..100000 => down(n + 1), _ => 0 }".to_owned(),
    ];
    for body in bodies {
        let text = format!(
            "fn down(n) {{ {body} }} fn on_permit(req, identity, resource) {{ down(0) > 0 }}"
        );
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            let folder = Folder::of(&[("hooks.rhai", &text)]);
            let scripts = folder.load().unwrap_or_else(|found| panic!("{text}: {found:?}"));
            let set = scripts.current();
            let script = set.hooks(Function::OnPermit, None).next().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let outcome =
                runtime.block_on(script.on_permit(&req(), &llama_identity(), &resource()));
            let detail = outcome.as_ref().err().and_then(Fault::detail);
            let is_stopped = detail.is_some_and(|detail| detail.contains("too"));
            assert!(is_stopped, "{text}: {outcome:?}");
        });
        thread.unwrap().join().unwrap();
    }
}

/// Each source is rejected with an error, and the parser does not overflow the stack.
#[test]
fn each_hostile_source_is_refused() {
    let deep = |open: &str, close: &str| {
        format!(
            "fn on_request(req) {{ let x = {}1{}; }}",
            open.repeat(20_000),
            close.repeat(20_000)
        )
    };
    let sources = [
        deep("(", ")"),
        deep("[", "]"),
        deep("#{a:", "}"),
        deep("!", ""),
        deep("-", ""),
        deep("{", "}"),
        deep("if true {", "}"),
        deep("|x| ", ""),
        deep("`${", "}`"),
        format!("fn on_request(req) {{ req.a{} }}", ".a".repeat(50_000)),
        format!("fn on_request(req) {{ 1{} }}", " + 1".repeat(50_000)),
        "fn a() {} ".repeat(5000),
        (0..5000).map(|n| format!("fn f{n}() {{}} ")).collect(),
        "\0".repeat(1000),
        "/*".repeat(1000),
        "\"".into(),
        "fn on_request(req".into(),
        "import \"x\" as y; fn on_request(req) {}".into(),
        "export const X = 1; fn on_request(req) {}".into(),
        "fn on_request(req) { eval(\"1\") }".into(),
        "fn on_request(req) { let f = Fn(\"on_request\"); f.curry(1); }".into(),
        "fn on_request(req) { let x = 1; let f = |y| x + y; f.call(2); }".into(),
        "fn on_request(req) { y::z(); }".into(),
        "const X = f(); fn f() { loop {} } fn on_request(req) {}".into(),
        "loop {} fn on_request(req) {}".into(),
    ];
    for source in sources {
        let shown: String = source.chars().take(80).collect();
        let folder = Folder::of(&[("hooks.rhai", &source)]);
        let thread = std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || folder.load().map(|_| ()).unwrap_err());
        let problems = thread.unwrap().join().unwrap_or_else(|_| panic!("{shown}"));
        assert!(!problems.is_empty(), "{shown}");
    }
}

#[tokio::test]
async fn slow_script_is_stopped_by_the_time_limit() {
    let limits = ScriptLimits {
        operations: u64::MAX,
        time: Duration::from_millis(100),
        blocking_operations: u64::MAX,
        ..ScriptLimits::default()
    };
    let start = Instant::now();
    let message = detail(permit_with(limits, "loop {}").await);
    assert!(message.contains("too long"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn budget_errors_cannot_be_caught() {
    let body = "try { loop {} } catch { } true";
    assert!(detail(permit(body).await).contains("too many steps"));
}

#[tokio::test]
async fn script_that_exceeds_its_budget_for_several_clients_is_off_until_a_reload() {
    let limits = ScriptLimits { strikes: 3, strike_clients: 2, ..limits() };
    let text = "fn on_request(req) { if req.param(\"spin\") != () { loop {} } }";
    let folder =
        Folder::of(&[("hooks.rhai", text), ("resources/calm.rhai", "fn on_request(req) {}")]);
    let scripts = folder.load_with(limits, host()).unwrap();
    let spin = req().changed(|parts| parts.query = Some("spin".into()));
    let set = scripts.current();
    let script = set.hooks(Function::OnRequest, None).next().unwrap();
    let from = |req: &ScriptRequest, number: u8| {
        req.changed(|parts| parts.client = [192, 0, 2, number].into())
    };
    for client in [1, 2] {
        for _ in 0..3 {
            assert!(scripts.problems().is_empty());
            script.on_request(&from(&req(), client)).await.unwrap();
            let message = detail(script.on_request(&from(&spin, client)).await);
            assert!(message.starts_with("hooks.rhai:1:"), "{message}");
            let expected = "on_request takes too many steps (scripts.operations)";
            assert!(message.contains(expected), "{message}");
        }
        if client == 1 {
            let shut_out = script.on_request(&from(&req(), client)).await;
            assert!(matches!(shut_out, Err(Fault::ShutOut { .. })), "{shut_out:?}");
            script.on_request(&req()).await.unwrap();
        }
    }
    assert!(detail(script.on_request(&req()).await).contains("switched off"));
    assert_eq!(scripts.problems(), [ScriptProblem::SwitchedOff { file: "hooks.rhai".into() }]);
    // Only this script is switched off.
    let calm = set.hooks(Function::OnRequest, Some("calm")).nth(1).unwrap();
    calm.on_request(&req()).await.unwrap();

    scripts.reload().unwrap();
    assert!(scripts.problems().is_empty());
    let set = scripts.current();
    set.hooks(Function::OnRequest, None).next().unwrap().on_request(&req()).await.unwrap();
}

/// Runs expensive patterns on the longest text that `matches()` accepts.
#[tokio::test]
async fn regular_expression_is_within_the_time_limit_of_a_call() {
    for pattern in
        ["(?:[a-z]{0,60}x){0,12}y", "(a*)*(a|aa)+$b", "(?:a?){250}a{250}b", "^(\\\\w+\\\\s?)*$"]
    {
        let start = Instant::now();
        let body =
            format!("let s = \"\"; s.pad(8192, 'a'); s[8191] = '!'; !matches(s, \"{pattern}\")");
        let outcome = permit(&body).await;
        assert!(start.elapsed() < Duration::from_secs(2), "{pattern}: {:?}", start.elapsed());
        // A pattern that is too large is rejected.
        let is_refused =
            matches!(&outcome, Err(Fault::Failed { detail }) if detail.contains("pattern"));
        assert!(
            is_refused || matches!(outcome, Ok(PermitResult::Granted)),
            "{pattern}: {outcome:?}"
        );
    }
}

#[test]
fn log_lines_of_a_call_are_limited() {
    let budget = ScriptLimits::default().inline();
    let logged = runtime::budget::run_within(budget, || {
        (0..1000).filter(|_| runtime::budget::take_log_line()).count()
    });
    assert_eq!(logged, ScriptLimits::default().log_lines);
}
