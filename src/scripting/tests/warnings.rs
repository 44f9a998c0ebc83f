//! Tests of probable mistakes that a script is loaded with, and of declared credentials.

use std::collections::BTreeSet;

use super::*;

/// The warnings about one file, as text.
#[track_caller]
fn warnings(file: &str, text: &str) -> Vec<String> {
    let scripts = Folder::of(&[(file, text)]).load().unwrap_or_else(|problems| {
        panic!("{text}: {}", problems.iter().map(ToString::to_string).collect::<String>())
    });
    let problems = scripts.problems();
    let warnings = problems.iter().filter(|one| matches!(one, ScriptProblem::Warning(_)));
    warnings.map(ToString::to_string).collect()
}

fn verify(constants: &str, body: &str) -> String {
    format!("{constants}\nfn verify(req, user, credential) {{ {body} }}")
}

#[test]
fn declared_credential_attributes_are_those_of_all_authentication_scripts() {
    let read = |name: &str| verify(&format!("const CREDENTIAL_ATTRIBUTES = [\"{name}\"];"), "true");
    let folder = Folder::of(&[
        ("auth/a.rhai", &read("pin")),
        ("auth/b.rhai", &read("badge")),
        ("auth/c.rhai", &verify("", "true")),
    ]);
    let scripts = folder.load().unwrap();
    let expected = BTreeSet::from(["badge".to_owned(), "pin".to_owned()]);
    assert_eq!(*scripts.current().credential_attributes(), expected);
    assert_eq!(*scripts.current().dry_run().credential_attributes(), expected);
    let legacy = fs::read_to_string("scripts/auth/legacy_sha256.rhai").unwrap();
    let scripts = Folder::of(&[("auth/old.rhai", &legacy)]).load().unwrap();
    assert!(scripts.current().credential_attributes().contains("legacy_sha256"));
    assert_eq!(scripts.problems(), []);
}

#[test]
fn wrong_declarations_of_credential_attributes_are_errors() {
    for value in ["\"pin\"", "[1]", "[\"\"]", "#{}", "true"] {
        let text = verify(&format!("const CREDENTIAL_ATTRIBUTES = {value};"), "true");
        let problem = Folder::of(&[("auth/a.rhai", &text)]).load_errors();
        assert!(problem.contains("array of names of user attributes"), "{value}: {problem}");
    }
    let hooks = "const CREDENTIAL_ATTRIBUTES = [\"pin\"];\nfn on_request(req) {}";
    let problem = Folder::of(&[("hooks.rhai", hooks)]).load_errors();
    assert!(problem.contains("has a meaning only in auth/NAME.rhai"), "{problem}");
}

#[test]
fn undeclared_reads_of_user_attributes_are_warnings() {
    for (body, expected) in [
        ("user.attributes.pin == credential.pin", "attribute pin"),
        ("user.attributes[\"pin\"] == credential.pin", "attribute pin"),
        ("user.attributes[PIN].to_lower() == credential.pin", "attribute pin"),
        ("let u = user; constant_time_eq(u.attributes.pin, credential.pin)", "attribute pin"),
        ("helper(user)", "attribute badge"),
        ("let all = user.attributes; all.pin == \"\"", "names cannot be seen"),
        ("user.attributes[credential.name] == \"\"", "names cannot be seen"),
        ("user.attributes.keys().len() == 1", "names cannot be seen"),
        ("user_by_id(1).attributes.pin == \"\"", "attribute pin"),
    ] {
        let helper = if body.contains("helper") { "user.attributes.badge == \"\"" } else { "true" };
        let constants = format!("const PIN = \"pin\"; private fn helper(user) {{ {helper} }}");
        let found = warnings("auth/a.rhai", &verify(&constants, body));
        assert!(found.len() == 1 && found[0].contains(expected), "{body}: {found:?}");
        assert!(found[0].starts_with("auth/a.rhai:"), "{body}: {found:?}");
    }
}

#[test]
fn declared_reads_and_reads_of_tests_and_hooks_are_no_warnings() {
    let declared =
        "const CREDENTIAL_ATTRIBUTES = [\"pin\"]; const PLAIN_ATTRIBUTES = [\"tenant\"];";
    let body = "user.attributes.pin == \"1\" && user.attributes[\"tenant\"] == \"a\"";
    assert_eq!(warnings("auth/a.rhai", &verify(declared, body)), [""; 0]);
    let body = "let all = user.attributes; all.pin == \"\"";
    assert_eq!(warnings("auth/a.rhai", &verify(declared, body)), [""; 0]);
    let test =
        "fn test_a() { let u = test_user(#{ name: \"a\" }); assert(u.attributes.x == (), \"\"); }";
    assert_eq!(warnings("auth/a.rhai", &verify(test, "true")), [""; 0]);
    let hook = "fn on_authenticated(req, identity) { if identity.attributes.a == () {} }";
    assert_eq!(warnings("hooks.rhai", hook), [""; 0]);
}
