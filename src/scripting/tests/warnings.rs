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

#[test]
fn probable_mistakes_are_warnings() {
    for (body, expected) in [
        (
            "if identity.nmae == \"a\" {}",
            "identity has no property nmae; did you mean identity.name?",
        ),
        ("req.hedaers.len();", "req has no property hedaers"),
        ("deny(200, \"FINE\", \"Fine.\");", "cannot be refused with the status 200"),
        ("deny(STATUS, \"FINE\", \"Fine.\");", "cannot be refused with the status 302"),
        ("log(`${req.method}\\n${req.path}`);", "a text in backticks does not know"),
        ("hmac_sha256(secret(\"nobody\"), \"a\");", "there is no secret \"nobody\""),
        ("hmac_sha256(secret(NAME), \"a\");", "there is no secret \"partner\""),
    ] {
        let text = format!(
            "const STATUS = 302; const NAME = \"partner\";\nfn on_authenticated(req, identity) {{\n{body}\n}}"
        );
        let found = warnings("hooks.rhai", &text);
        assert!(found.len() == 1 && found[0].contains(expected), "{body}: {found:?}");
        assert!(found[0].starts_with("hooks.rhai:3:"), "{body}: {found:?}");
    }
}

#[test]
fn right_scripts_have_no_warnings() {
    for body in [
        "if identity.name == req.path {} hmac_sha256(secret(\"webhook\"), \"a\"); deny(403, \"NO\", \"No.\");",
        "let user = #{ any: 1 }; user.any; log(\"a\\nb\"); log(`${ \"a\\n\" }`);",
    ] {
        let text = format!("fn on_authenticated(req, identity) {{ {body} }}");
        assert_eq!(warnings("hooks.rhai", &text), [""; 0], "{body}");
    }
    for folder in ["scripts", "scripts/auth", "examples/scripts"] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let kind = if folder == "scripts/auth" { "auth/a.rhai" } else { "hooks.rhai" };
            let file = if path.ends_with("events.rhai") { "events.rhai" } else { kind };
            let found = warnings(file, &text);
            let found: Vec<_> = found.iter().filter(|text| !text.contains("no secret")).collect();
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
    }
}

#[tokio::test]
async fn missing_attribute_is_named_in_the_error() {
    let message = detail(permit("identity.attributes.nothing.len() > 0").await);
    assert!(message.contains("the attribute \"nothing\" is not set"), "{message}");
}

#[test]
fn secrets_are_reloaded_with_the_scripts() {
    let secrets = TempDir::new().unwrap();
    let read = |folder: &Path| -> Result<Vec<(String, Secret)>, String> {
        let path = folder.join("partner");
        let Ok(text) = fs::read_to_string(path) else { return Ok(Vec::new()) };
        if text == "broken" {
            Err("it is broken".into())
        } else {
            Ok(vec![("partner".into(), Secret::new(text))])
        }
    };
    let host =
        ScriptHost { secrets: Secrets::from_folder(secrets.path(), read).unwrap(), ..host() };
    let text = "fn on_request(req) { if !constant_time_eq(secret(\"partner\"), req.query) { deny(403, \"NO\", \"No.\"); } }";
    let folder = Folder::of(&[("hooks.rhai", text)]);
    let scripts = folder.load_with(limits(), host).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let passes = |query: &str| {
        let request = req().changed(|parts| parts.query = Some(query.into()));
        let set = scripts.current();
        let script = set.hooks(Function::OnRequest, None).next().unwrap();
        runtime.block_on(script.on_request(&request)).is_ok()
    };
    assert_eq!(scripts.problems().len(), 1);
    assert!(!passes("one"));
    let write = |text| fs::write(secrets.path().join("partner"), text).unwrap();
    write("one");
    assert!(scripts.reload_if_changed().unwrap().is_new);
    assert!(passes("one") && scripts.problems().is_empty());
    assert!(!scripts.reload_if_changed().unwrap().is_new);
    write("two");
    scripts.reload().unwrap();
    assert!(passes("two") && !passes("one"));
    // If a secret cannot be read, the scripts keep the secrets that they had.
    write("broken");
    let problem = scripts.reload().unwrap_err()[0].to_string();
    assert_eq!(problem, "scripts.secrets_dir: it is broken");
    assert!(passes("two"));
}
