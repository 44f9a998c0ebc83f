//! Tests of `key scan`: encodings, names of files, owners, and SARIF.

use std::{fs, io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

fn scan(site: &Site, args: &[&str]) -> (Option<i32>, String, String) {
    let output = site.run(&[&["key", "scan"], args].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn scan_says_whose_the_keys_are_and_whether_they_work() {
    let server = Server::new();
    let site = &server.site;
    let active = server.user_with_permissions("ann", &[]);
    let revoked = server.generate_key("ann", &["--label", "old laptop"]);
    site.json(&["key", "revoke", &revoked.id]);
    let other = Site::new();
    let foreign = other.json(&["init"])["key"].as_str().unwrap().to_owned();
    fs::create_dir(site.path().join("tree")).unwrap();
    let text = format!("{}\n{}\n{foreign}\n", active.text, revoked.text);
    fs::write(site.path().join("tree/f"), &text).unwrap();
    let check = |site: &Site| {
        let (code, out, errors) = scan(site, &["tree"]);
        assert_eq!(code, Some(6), "{errors}");
        let row = |id: &str| {
            let line = out.lines().find(|line| line.starts_with(id)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row(&active.id), format!("{} ann - active", active.id));
        assert_eq!(row(&revoked.id), format!("{} ann old laptop revoked", revoked.id));
        assert_eq!(row(&foreign[3..11]), format!("{} - - unknown", &foreign[3..11]));
        for key in [&active.text, &revoked.text, &foreign] {
            assert!(!out.contains(&key[12..]) && !errors.contains(&key[12..]), "{out}{errors}");
        }
        let found: Value =
            serde_json::from_str(&scan(site, &["tree", "--output", "json"]).1).unwrap();
        let states: Vec<&Value> =
            found.as_array().unwrap().iter().map(|entry| &entry["state"]).collect();
        assert_eq!(states, ["active", "revoked", "unknown"]);
        assert_eq!(found[0]["username"], "ann");
    };
    check(site);
    let (_, out, _) = scan(site, &["tree", "--offline"]);
    assert!(!out.contains("ann"), "{out}");
    // Without a server, the store knows the same.
    check(&server.kill());
}

#[test]
fn problem_with_the_owners_does_not_hide_the_keys() {
    let site = Site::new();
    let key = site.json(&["init"])["key"].as_str().unwrap().to_owned();
    fs::write(site.path().join("f"), &key).unwrap();
    fs::remove_file(site.path().join("data/keyward.pepper")).unwrap();
    let (code, out, errors) = scan(&site, &["f"]);
    assert_eq!(code, Some(6), "{errors}");
    assert!(out.starts_with("f:1:1: ") && errors.contains("owners of the keys are not known"));
    // A configuration that is named must be valid.
    fs::write(site.path().join("bad.toml"), "[nonsense]\n").unwrap();
    let (code, _, errors) = scan(&site, &["f", "--config", "bad.toml"]);
    assert_eq!(code, Some(6));
    assert!(errors.contains("nonsense"), "{errors}");
}

#[test]
fn names_of_files_and_targets_of_links_are_scanned() {
    let site = Site::new();
    let key = site.json(&["init"])["key"].as_str().unwrap().to_owned();
    let tree = site.path().join("tree");
    fs::create_dir_all(tree.join(format!("dir-{key}"))).unwrap();
    fs::write(tree.join(format!("dir-{key}/clean")), "nothing").unwrap();
    fs::write(tree.join(format!("{key}.txt")), "nothing").unwrap();
    std::os::unix::fs::symlink(format!("/x/{key}"), tree.join("link")).unwrap();
    let (code, out, errors) = scan(&site, &["tree", "--offline"]);
    assert_eq!((code, out.matches("(in the name)").count()), (Some(6), 3), "{out}");
    assert!(!out.contains(&key[12..]) && !errors.contains(&key[12..]), "{out}{errors}");
    let found: Value = serde_json::from_str(&scan(&site, &["tree", "--output", "json"]).1).unwrap();
    assert_eq!((&found[0]["form"], &found[0]["line"]), (&json!("name"), &Value::Null));
}

#[test]
fn sarif_has_the_members_that_the_standard_requires() {
    let server = Server::new();
    let site = &server.site;
    let active = server.user_with_permissions("ann", &[]);
    let revoked = server.generate_key("ann", &[]);
    site.json(&["key", "revoke", &revoked.id]);
    fs::create_dir(site.path().join("a tree")).unwrap();
    let text = format!("\n{}\n{}\n", active.text, revoked.text);
    fs::write(site.path().join("a tree/é.env"), &text).unwrap();
    let (code, out, _) = scan(site, &["a tree", "--output", "sarif"]);
    assert_eq!(code, Some(6));
    assert!(!out.contains(&active.text[12..]), "{out}");
    let log: Value = serde_json::from_str(&out).unwrap();
    // The required members of SARIF 2.1.0: sections 3.13, 3.14, 3.18, 3.19, 3.27 and 3.11.
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().starts_with("https://"));
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "keyward");
    assert_eq!(run["invocations"][0]["executionSuccessful"], true);
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(result["ruleId"], rule["id"]);
        assert!(result["message"]["text"].as_str().unwrap().contains("ann"));
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20tree/%C3%A9.env");
        assert!(place["region"]["startLine"].as_u64().unwrap() >= 1);
    }
    assert_eq!((&results[0]["level"], &results[1]["level"]), (&json!("error"), &json!("note")));
    assert_eq!(results[0]["locations"][0]["physicalLocation"]["region"]["startLine"], 2);
    // A clean tree has an empty list, and a file that cannot be read is said.
    fs::write(site.path().join("clean"), "").unwrap();
    let (code, out, _) = scan(site, &["clean", "missing", "--output", "sarif"]);
    let log: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &log["runs"][0]["results"]), (Some(1), &json!([])));
    assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], false);
    // No other command has this format.
    let other = site.run(&["user", "list", "--output", "sarif"]);
    assert_eq!(other.status.code(), Some(2));
}

#[test]
fn endless_input_takes_bounded_memory() {
    let site = Site::new();
    let key = site.json(&["init"])["key"].as_str().unwrap().to_owned();
    let mut child = site
        .command(&["key", "scan", "--offline"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Lines of 8 MB, of characters that can be Base64, so that nothing ends a run early.
    let line = vec![b'A'; 8 << 20];
    for _ in 0..2 {
        input.write_all(&line).unwrap();
        input.write_all(b"\n").unwrap();
    }
    input.write_all(format!(" {key}\n").as_bytes()).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB");
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("-:3:2: "));
}
