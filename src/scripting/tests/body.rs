//! Tests of the functions that need the body of a request.

use super::*;

/// The names of the functions of one file that read the body, and the warnings.
#[track_caller]
fn readers(file: &str, text: &str) -> (Vec<&'static str>, Vec<String>) {
    let scripts = Folder::of(&[(file, text)]).load().unwrap_or_else(|problems| {
        panic!("{text}: {}", problems.iter().map(ToString::to_string).collect::<String>())
    });
    let set = scripts.current();
    let script = set.scripts()[0];
    let names = Function::ALL.into_iter().filter(|function| script.reads_body(*function));
    let problems = scripts.problems();
    let warnings = problems.iter().filter(|one| matches!(one, ScriptProblem::Warning(_)));
    (names.map(Function::name).collect(), warnings.map(ToString::to_string).collect())
}

#[test]
fn function_reads_the_body_also_through_other_functions() {
    let none: [&str; 0] = [];
    for (text, expected) in [
        (
            "fn on_request(req) { req.path } fn on_permit(req, identity, resource) { req.body == \"a\" }",
            &["on_permit"][..],
        ),
        (
            "fn on_request(req) { help(req); } private fn help(r) { more(r) } private fn more(r) { r.body_sha256 }",
            &["on_request"],
        ),
        (
            "fn on_request(req) { if req.path == \"/a\" { let x = `${req.body_bytes}`; } }",
            &["on_request"],
        ),
        (
            "fn on_request(req) { let f = |r| r.body; f.call(req); } fn on_permit(req, identity, resource) { true }",
            &["on_request", "on_permit"],
        ),
        (
            "fn on_request(req) { let f = Fn(\"help\"); f.call(req); } private fn help(r) { r.body }",
            &["on_request"],
        ),
        (
            "fn on_request(req) { req.path } fn test_it() { test_request(\"GET\", \"/\").body }",
            &none,
        ),
        (
            "fn on_response(req, identity, response) { response.body = \"\"; } fn on_request(req) {}",
            &["on_response"],
        ),
    ] {
        assert_eq!(readers("hooks.rhai", text), (expected.to_vec(), Vec::new()), "{text}");
    }
}

#[test]
fn authentication_type_declares_that_it_reads_the_body() {
    let verify = "fn verify(req, user, credential) { req.body == \"a\" } fn header(req) { \"a\" }";
    let declared = format!("const READS_BODY = true; {verify}");
    assert_eq!(readers("auth/a.rhai", &declared), (vec!["verify"], Vec::new()));
    // The declaration alone makes Keyward read the body first.
    let alone = "const READS_BODY = true; fn header(req) { \"a\" }";
    let all = vec!["header", "decode", "lookup", "verify"];
    assert_eq!(readers("auth/a.rhai", alone), (all, Vec::new()));
    let (found, warnings) = readers("auth/a.rhai", verify);
    assert_eq!(found, ["verify"]);
    assert!(
        warnings.len() == 1 && warnings[0].contains("const READS_BODY = true;"),
        "{warnings:?}"
    );
    assert_eq!(readers("auth/a.rhai", "fn header(req) { req.path }"), (Vec::new(), Vec::new()));
}

#[test]
fn wrong_declaration_is_an_error() {
    for (file, text, expected) in [
        ("auth/a.rhai", "const READS_BODY = 1; fn header(req) {}", "must be true or false"),
        (
            "auth/a.rhai",
            "const READS_BODY = false; fn header(req) { req.body }",
            "is false, but header reads the body",
        ),
        ("hooks.rhai", "const READS_BODY = true; fn on_request(req) {}", "only in auth/NAME.rhai"),
    ] {
        let problem = Folder::of(&[(file, text)]).load_errors();
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}
