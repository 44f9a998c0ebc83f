//! Tests of loading: rejected scripts, their errors, and the set that stays in use.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const HOOK: (&str, &str) = ("hooks.rhai", "fn on_request(req) {}");

#[test]
fn a_missing_and_an_empty_folder_are_empty_sets() {
    let folder = Folder::of(&[]);
    assert!(!folder.load().unwrap().current().has_hooks());
    assert!(folder.load().unwrap().in_force().is_none());
    assert!(Folder::of(&[HOOK]).load().unwrap().in_force().is_some());
    let missing = folder.path().join("missing");
    let scripts = Scripts::load(&missing, limits(), host()).unwrap();
    assert!(scripts.current().scripts().is_empty());
    assert!(Scripts::none().is_none() && !Scripts::none().current().has_hooks());
    assert_eq!(Scripts::none().reload().unwrap().scripts, 0);
}

#[test]
fn error_shows_file_line_column_and_a_caret() {
    let text = "fn on_request(req) {\n\tlet x = 1;\n\tlet y = x +;\n}";
    let folder = Folder::of(&[("resources/orders.rhai", text)]);
    let problems = folder.load().map(|_| ()).unwrap_err();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((problem.line, problem.column), (Some(3), Some(13)));
    assert_eq!(problem.excerpt().unwrap(), "3 | \tlet y = x +;\n  | \t           ^");
    assert!(problem.to_string().starts_with("resources/orders.rhai:3:13: "), "{problem}");
}

#[test]
fn wrong_names_arity_and_unknown_functions_are_reported() {
    let mut wrong = Vec::new();
    for (file, text, expected) in [
        ("hooks.rhai", "fn on_deny(req, denial) {}", "did you mean on_denied(req, denial)?"),
        ("hooks.rhai", "fn On_Request(req) {}", "did you mean on_request(req)?"),
        ("hooks.rhai", "fn on_everything(req) {}", "Keyward never calls on_everything"),
        ("hooks.rhai", "fn on_request() {}", "write on_request as on_request(req)"),
        ("hooks.rhai", "fn on_request(req, x) {}", "write on_request as on_request(req)"),
        ("hooks.rhai", "fn verify(req, user, credential) { true }", "belongs in auth/"),
        ("hooks.rhai", "fn handle(req, identity) {}", "belongs in handlers/"),
        ("auth/a.rhai", "fn on_request(req) {}", "belongs in hooks.rhai"),
        ("auth/a.rhai", "fn verifi(req, user, credential) {}", "did you mean verify("),
        (
            "auth/a.rhai",
            "",
            "the file defines none of header(req), decode(req, presented), lookup(",
        ),
        ("hooks.rhai", "fn helper() {}", "the file defines none of on_request(req)"),
        ("hooks.rhai", "fn on_request(req) {} fn test_a(x) {}", "a test takes no arguments"),
        (
            "hooks.rhai",
            "fn on_request(req) { hexx(\"a\"); }",
            "there is no function hexx; did you mean hex?",
        ),
        (
            "hooks.rhai",
            "fn on_request(req) { req.heeder(\"a\"); }",
            "there is no function heeder; did you mean header?",
        ),
        ("hooks.rhai", "fn on_request(req) { deny(403); }", "deny takes 3 arguments, not 1"),
        ("hooks.rhai", "fn on_request(req) { req.header(); }", "header takes"),
        (
            "hooks.rhai",
            "fn on_request(req) { help(1); } fn help() {}",
            "help takes 0 arguments, not 1",
        ),
        ("hooks.rhai", "fn on_request(req) { rek; }", "there is no variable rek here"),
        ("hooks.rhai", "let x = 1; fn on_request(req) {}", "write const"),
        ("hooks.rhai", "log(\"a\"); fn on_request(req) {}", "only const and fn"),
        (
            "hooks.rhai",
            "const BLOCKING = 1; fn on_request(req) {}",
            "BLOCKING must be true or false",
        ),
        (
            "hooks.rhai",
            "const X = secret(\"webhook\"); fn on_request(req) {}",
            "a constant cannot be evaluated",
        ),
        ("hooks.rhai", "const X = |x| x; fn on_request(req) {}", "is not plain data"),
        ("auth/basic.rhai", "fn header(req) {}", "is built in"),
        (
            "auth/a.rhai",
            "const CREDENTIAL = #{ header: [\"X-A\"] }; fn header(req) {}",
            "CREDENTIAL has no field header; did you mean headers?",
        ),
        ("auth/a.rhai", "fn header(req) { req.header(\"A\") }", "write header(req, …), with"),
        ("auth/A.rhai", "fn header(req) {}", "cannot be an id"),
        ("auth/.rhai.rhai", "fn header(req) {}", ""),
        ("handler/a.rhai", "fn handle(req, identity) {}", "Did you mean handlers/NAME.rhai?"),
        ("hook.rhai", "fn on_request(req) {}", "Did you mean hooks.rhai?"),
        ("other/a.rhai", "", "no script is loaded from this path"),
    ] {
        if file == "auth/.rhai.rhai" {
            // Hidden files are ignored: editors create them.
            assert!(Folder::of(&[(file, text)]).load().is_ok());
            continue;
        }
        let message = match Folder::of(&[(file, text)]).load() {
            Ok(_) => "loaded".to_owned(),
            Err(problems) => problems[0].to_string(),
        };
        if !message.contains(expected) || !message.starts_with(file) {
            wrong.push(format!("{file} {text}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn other_function_names_are_allowed() {
    let text =
        "fn on_request(req) { headers(req) } private fn header(x) {} fn test_it() { headers(1) }
        private fn headers(req) { header(1); let f = |x| x + 1; let y = f.call(1); }";
    // A private function must not have the name of a function that Keyward calls in another kind of
    // file.
    assert!(Folder::of(&[("hooks.rhai", text)]).load_errors().contains("belongs in auth/"));
    let text = text.replace("private fn header(x) {}", "").replace("header(1);", "");
    Folder::of(&[("hooks.rhai", &text), ("README.md", "a"), ("notes/a.txt", "b")]).load().unwrap();
}

#[tokio::test]
async fn constants_are_visible_inside_functions() {
    let constants = r#"const LIMIT = 5; const TWICE = LIMIT * 2; const NETS = ["10.0.0.0/8"]; const NAMES = #{ a: #{ b: 1 } };
        const HALF = 0.5; const TEXT = "t"; const HEX = hex("a"); const YES = true; const NONE = ();"#;
    let mut wrong = Vec::new();
    for body in [
        "LIMIT == 5",
        "TWICE == 10 && LIMIT + TWICE == 15",
        "NETS.len() == 1",
        "NETS[0] == \"10.0.0.0/8\"",
        "in_network(\"10.1.1.1\", NETS)",
        "NAMES.a.b == 1 && NAMES[\"a\"].b == 1",
        "HALF * 2.0 == 1.0",
        "TEXT == \"t\" && TEXT.len() == 1 && HEX == \"61\" && `${TEXT}` == \"t\"",
        "YES && NONE == ()",
        "let n = 0; for net in NETS { n += 1; } n == 1",
        "let copy = NETS; copy.push(\"x\"); copy.len() == 2 && NETS.len() == 1",
        "let shadow = |LIMIT| LIMIT; shadow.call(1) == 1",
        "let LIMIT = 7; LIMIT == 7",
        "let f = |x| x + LIMIT; f.call(1) == 6",
        "help() == 5",
        "given(3) == 3 && given(LIMIT) == 5",
        "[1, 2].map(|NETS| NETS + 1) == [2, 3]",
        "let n = 0; for LIMIT in [1, 2] { n += LIMIT; } n == 3 && LIMIT == 5",
        "let t = (); try { throw \"x\"; } catch (TEXT) { t = TEXT; } t == \"x\"",
        "let n = 0; if YES { let TEXT = 1; n = TEXT; } n == 1 && TEXT == \"t\"",
        "switch TEXT { \"t\" => true, _ => false }",
    ] {
        let text = format!(
            "{constants} fn help() {{ LIMIT }} fn given(LIMIT) {{ LIMIT }} fn on_permit(req, identity, resource) {{ {body} }}"
        );
        let folder = Folder::of(&[("hooks.rhai", &text)]);
        let scripts = folder.load().unwrap_or_else(|found| panic!("{body}: {}", found[0]));
        let set = scripts.current();
        let script = set.hooks(Function::OnPermit, None).next().unwrap();
        for _ in 0..2 {
            let outcome = script.on_permit(&req(), &llama_identity(), &resource()).await;
            if !matches!(outcome, Ok(PermitResult::Granted)) {
                wrong.push(format!("{body}: {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A constant cannot be changed.
    for body in ["A.push(2);", "A[0] = 2;", "A = 2;", "B = 2;", "B += 1;", "M.a = 2;", "A += 1;"] {
        let text = format!(
            "const A = [1]; const B = 1; const M = #{{ a: 1 }}; fn on_request(req) {{ {body} }}"
        );
        let folder = Folder::of(&[("hooks.rhai", &text)]);
        // Some errors are found at load, others at run time.
        if let Ok(scripts) = folder.load() {
            let set = scripts.current();
            let script = set.hooks(Function::OnRequest, None).next().unwrap();
            for _ in 0..2 {
                let outcome = script.on_request(&req()).await;
                let kept = &script.inner.compiled.constants;
                assert_eq!(kept["A"].as_array_ref().unwrap().len(), 1);
                assert_eq!(kept["M"].as_map_ref().unwrap().len(), 1);
                if outcome.is_ok() {
                    wrong.push(body.to_owned());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_cannot_be_scripts_are_refused() {
    let folder = Folder::of(&[HOOK]);
    let expect_error = |expected: &str| {
        let errors = folder.load_errors();
        assert!(errors.contains(expected), "{errors}");
    };
    folder.write("auth/a.rhai", b"\xff\xfe");
    expect_error("auth/a.rhai: the file is not UTF-8 text");
    folder.write("auth/a.rhai", vec![b' '; ScriptLimits::default().script_bytes + 1]);
    expect_error("more than 262144 bytes");
    fs::remove_file(folder.path().join("auth/a.rhai")).unwrap();
    fs::create_dir(folder.path().join("auth/a.rhai")).unwrap();
    expect_error("not a regular file");
    fs::remove_dir(folder.path().join("auth/a.rhai")).unwrap();
    symlink("/etc/passwd", folder.path().join("auth/a.rhai")).unwrap();
    expect_error("leads out of the folder");
    fs::remove_file(folder.path().join("auth/a.rhai")).unwrap();
    symlink("missing", folder.path().join("auth/a.rhai")).unwrap();
    expect_error("cannot be read");
    fs::remove_file(folder.path().join("auth/a.rhai")).unwrap();
    symlink("a.rhai", folder.path().join("auth/a.rhai")).unwrap();
    expect_error("cannot be read");
    fs::remove_file(folder.path().join("auth/a.rhai")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("auth/a.rhai"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    expect_error("not a regular file");
    fs::remove_file(folder.path().join("auth/a.rhai")).unwrap();
    // A link inside the folder is accepted.
    symlink("../hooks.rhai", folder.path().join("resources.rhai")).unwrap();
    fs::create_dir(folder.path().join("resources")).unwrap();
    fs::rename(folder.path().join("resources.rhai"), folder.path().join("resources/a.rhai"))
        .unwrap();
    folder.load().unwrap();
    for n in 0..ScriptLimits::default().files {
        folder.write(&format!("resources/r{n}.rhai"), HOOK.1);
    }
    expect_error("more than 256 scripts");
}

#[test]
fn an_unreadable_file_is_refused() {
    let folder = Folder::of(&[HOOK]);
    let path = folder.path().join("hooks.rhai");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    // The superuser reads everything.
    if fs::read(&path).is_err() {
        assert!(folder.load_errors().contains("let Keyward's user read it"));
    }
}

#[tokio::test]
async fn last_valid_set_stays_in_use() {
    let text = |body: &str| format!("fn on_permit(req, identity, resource) {{ {body} }}");
    let folder = Folder::of(&[("hooks.rhai", &text("true"))]);
    let scripts = folder.load().unwrap();
    let decision = async || {
        let set = scripts.current();
        let script = set.hooks(Function::OnPermit, None).next().unwrap();
        script.on_permit(&req(), &llama_identity(), &resource()).await.unwrap()
    };
    let broken: [&[u8]; 5] = [
        b"fn on_permit(",
        b"",
        b"\xff",
        b"fn on_permit(req, identity, resource) { false } fn test_it() { assert(false, \"no\"); }",
        b"fn on_permit(req, identity, resource) { false } fn on_deny(a, b) {}",
    ];
    for bytes in broken {
        folder.write("hooks.rhai", bytes);
        let problems = scripts.reload().unwrap_err();
        assert_eq!(decision().await, PermitResult::Granted);
        let shown = scripts.problems();
        assert_eq!(shown, problems.into_iter().map(ScriptProblem::NotLoaded).collect::<Vec<_>>());
        assert!(!shown.is_empty());
    }
    folder.write("hooks.rhai", text("false"));
    assert!(scripts.reload().unwrap().is_new);
    assert_eq!(decision().await, PermitResult::Refused);
    assert!(scripts.problems().is_empty());
    // A set that a request uses stays unchanged.
    let taken = scripts.current();
    fs::remove_file(folder.path().join("hooks.rhai")).unwrap();
    scripts.reload().unwrap();
    assert!(!scripts.current().has_hooks() && taken.has_hooks());
}

#[test]
fn ten_thousand_reloads_leak_nothing() {
    let folder = Folder::of(&[HOOK]);
    let scripts = folder.load().unwrap();
    let first = scripts.current();
    for _ in 0..10_000 {
        assert!(!scripts.reload_if_changed().unwrap().is_new);
    }
    assert!(Arc::ptr_eq(&first, &scripts.current()));
    let weak = Arc::downgrade(&first);
    drop(first);
    for _ in 0..100 {
        scripts.reload().unwrap();
    }
    assert!(weak.upgrade().is_none(), "something holds an old set");
}

#[test]
fn unchanged_errors_are_kept_and_not_reported_as_success() {
    let folder = Folder::of(&[HOOK]);
    let scripts = folder.load().unwrap();
    folder.write("hooks.rhai", "fn");
    scripts.reload_if_changed().unwrap_err();
    scripts.reload_if_changed().unwrap_err();
    assert_eq!(scripts.problems().len(), 1);
    folder.write("hooks.rhai", HOOK.1);
    scripts.reload_if_changed().unwrap();
    assert!(scripts.problems().is_empty());
}

#[test]
fn configured_limits_are_applied() {
    let limits = ScriptLimits { functions: 3, variables: 4, expression_depth: 12, ..limits() };
    let load = |text: &str| Folder::of(&[("hooks.rhai", text)]).load_with(limits.clone(), host());
    load("fn on_request(req) {} fn a() {} fn b() {}").unwrap();
    load("fn on_request(req) {} fn a() {} fn b() {} fn c() {}").unwrap_err();
    load("fn on_request(req) { let x = (1 + (1 + 1)); }").unwrap();
    load("fn on_request(req) { let x = (1 + (1 + (1 + (1 + (1 + (1 + (1 + 1))))))); }")
        .unwrap_err();
}

#[test]
fn disabled_samples_cost_nothing() {
    let folder = Folder::of(&[("hooks.rhai", "// fn on_request(req) {}\nconst ALL_OFF = true;\n")]);
    let scripts = folder.load().unwrap();
    assert!(!scripts.current().has_hooks());
    // Requests do not even access the set.
    assert!(scripts.in_force().is_none());
    folder.write("hooks.rhai", "fn on_request(req) {}");
    scripts.reload().unwrap();
    // A truncated file, or a file with both hooks and ALL_OFF, does not count as disabled samples.
    for text in [
        "",
        "// fn on_request(req) {}\n",
        "fn on_request(req) {} const ALL_OFF = true;",
        "const ALL_OFF = 1;",
    ] {
        folder.write("hooks.rhai", text);
        assert!(scripts.reload().is_err(), "{text}");
        assert!(scripts.current().has_hooks());
    }
}

#[test]
fn shipped_scripts_are_valid_and_their_hooks_are_disabled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = Scripts::load(&root.join("scripts"), limits(), host()).unwrap();
    let set = scripts.current();
    assert!(!set.has_hooks());
    for name in ["hmac", "jwt", "query_key", "legacy_sha256"] {
        assert!(set.auth(name).is_some(), "{name}");
    }
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    // Each sample works without its comment slashes.
    let enabled = read("scripts/hooks.rhai").replace("// fn ", "fn ").replace("//     ", "    ");
    let enabled = enabled.replace("// }", "}").replace("const ALL_OFF = true;", "");
    let folder = Folder::of(&[("hooks.rhai", &enabled)]);
    let set = folder.load().unwrap().current();
    assert!(ScriptKind::Hooks.functions().iter().all(|one| set.is_hooked(*one)), "{enabled}");
    // The samples of events work too.
    let enabled = read("scripts/events.rhai").replace("// fn ", "fn ").replace("//     ", "    ");
    let enabled = enabled.replace("// }", "}").replace("const ALL_OFF = true;", "");
    let folder = Folder::of(&[("events.rhai", &enabled)]);
    let set = folder.load().unwrap().current();
    assert!(
        ScriptKind::Events.functions().iter().all(|one| set.event(*one).is_some()),
        "{enabled}"
    );
    for example in ["problem_json", "business_hours", "tenant_paths"] {
        let text = read(&format!("examples/scripts/{example}.rhai"));
        let folder = Folder::of(&[(&format!("resources/{example}.rhai"), &text)]);
        assert!(folder.load().unwrap().reload().unwrap().tests > 0, "{example}");
    }
}
