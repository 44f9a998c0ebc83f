//! The order of the house: imports point down, files stay short, each says what it is for.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each room of `src/`, and the rooms that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("files", &[]),
    ("tls", &["files"]),
    ("config", &["model"]),
    ("telemetry", &["model"]),
    ("limits", &["model"]),
    ("store", &["limits", "telemetry", "model"]),
    ("hooks", &["files", "telemetry", "model"]),
    ("accounts", &["files", "hooks", "store", "limits", "telemetry", "model"]),
    ("webhooks", &["tls", "accounts", "model"]),
    ("pipeline", &["accounts", "hooks", "store", "limits", "telemetry", "model"]),
    (
        "handlers",
        &["tls", "pipeline", "accounts", "hooks", "store", "limits", "telemetry", "model"],
    ),
    (
        "front",
        &["handlers", "pipeline", "accounts", "hooks", "store", "limits", "telemetry", "model"],
    ),
    (
        "http",
        &[
            "front",
            "handlers",
            "pipeline",
            "accounts",
            "hooks",
            "store",
            "limits",
            "telemetry",
            "tls",
            "model",
        ],
    ),
    (
        "layer",
        &[
            "front",
            "handlers",
            "pipeline",
            "accounts",
            "hooks",
            "store",
            "limits",
            "telemetry",
            "model",
        ],
    ),
    (
        "admin",
        &["handlers", "pipeline", "accounts", "hooks", "store", "limits", "telemetry", "model"],
    ),
    (
        "cli",
        &[
            "webhooks",
            "http",
            "admin",
            "front",
            "handlers",
            "pipeline",
            "accounts",
            "hooks",
            "store",
            "limits",
            "telemetry",
            "config",
            "files",
            "tls",
            "model",
        ],
    ),
];
/// These two stand above all rooms.
const ROOFS: &[&str] = &["lib", "main"];
const MOST_LINES: usize = 500;

#[test]
fn imports_point_down() {
    let mut problems = Vec::new();
    for file in files("src") {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let found = upward(&file, &text);
        problems.extend(found.into_iter().map(|found| format!("{}:{found}", file.display())));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut problems = Vec::new();
    for file in ["src", "tests", "examples", "benches"].into_iter().flat_map(files) {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        problems.extend(misshapen(&text).map(|found| format!("{}: {found}", file.display())));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn misshapen(text: &str) -> Option<String> {
    let lines = text.lines().count();
    if lines > MOST_LINES {
        return Some(format!("{lines} lines; at most {MOST_LINES}"));
    }
    (!text.starts_with("//! ")).then(|| "the first line is not `//! ` with what it is for".into())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder, relative to the root.
fn files(folder: &str) -> Vec<PathBuf> {
    let least = match folder {
        "src" => 30,
        "tests" => 2,
        // Not there yet, or empty, in a house that has neither.
        _ => 0,
    };
    files_of(root(), folder, least)
}

/// # Panics
/// When there are fewer than `least`: a check of nothing would always pass.
fn files_of(root: &Path, folder: &str, least: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() >= least, "only {} files in {folder}", found.len());
    found.sort();
    found
}

/// The lines of a file of `src/` whose paths point up or aside.
fn upward(file: &Path, text: &str) -> Vec<String> {
    let modules = modules(file);
    let room = modules.first().map_or("lib", String::as_str);
    if ROOFS.contains(&room) {
        return Vec::new();
    }
    let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("1: {room} is no room that the order knows")];
    };
    let text = without_comments(text);
    let mut problems = Vec::new();
    for (line, target) in targets(&text, modules.len()) {
        if target != room && !below.contains(&target.as_str()) {
            problems.push(format!("{line}: {room} must not use {target}"));
        }
    }
    problems
}

/// The path of a file's module: `src/store/sled/mark.rs` is `store`, `sled`, `mark`.
fn modules(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").unwrap().with_extension("");
    let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// Blanks the lines that are comments as a whole: documentation may point anywhere.
fn without_comments(text: &str) -> String {
    let keep = |line: &str| if line.trim_start().starts_with("//") { "" } else { line }.to_owned();
    text.lines().map(keep).collect::<Vec<_>>().join("\n")
}

/// The first name of each path that begins at the crate's root, with its line.
fn targets(text: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in words(text) {
        let rest = &text[at..];
        if word == "crate" {
            let Some(path) = rest[word.len()..].strip_prefix("::") else { continue };
            let start = text.len() - path.len();
            found.extend(heads(path).into_iter().map(|(offset, name)| (start + offset, name)));
        } else if word == "super" && !text[..at].ends_with("::") {
            // A chain that leaves the room; in a module inside the file, one `super` less leads as far up.
            let supers = rest.split("::").take_while(|one| *one == "super").count();
            let path = &rest[supers * "super::".len()..];
            let names = heads(path).into_iter().filter(|(_, name)| is_room(name));
            if supers >= depth {
                let start = text.len() - path.len();
                found.extend(names.map(|(offset, name)| (start + offset, name)));
            }
        }
    }
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    found.into_iter().map(|(at, name)| (line(at), name)).collect()
}

fn is_room(name: &str) -> bool {
    ROOMS.iter().any(|(room, _)| *room == name)
}

/// The names in a text, with their places.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter_map(move |word| {
        let start = at;
        at += word.len();
        // Past the character that ended it.
        at += text[at..].chars().next().map_or(0, char::len_utf8);
        (!word.is_empty()).then_some((start, word))
    })
}

/// The first name of a path, or the first names of a group in braces.
fn heads(path: &str) -> Vec<(usize, String)> {
    let name = |at: usize| -> Option<(usize, String)> {
        let word: String =
            path[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (!word.is_empty() && word != "self").then_some((at, word))
    };
    if !path.starts_with('{') {
        return name(0).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0;
    let mut is_head = false;
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => {}
            c if c.is_whitespace() => continue,
            _ => {
                if is_head && depth == 1 {
                    found.extend(name(at));
                }
                is_head = false;
                continue;
            }
        }
        if depth == 0 {
            break;
        }
        is_head = depth == 1;
    }
    found
}

#[test]
fn a_path_that_points_up_is_found() {
    let file = Path::new("src/pipeline/verify.rs");
    for (text, line, target) in [
        ("use crate::http::Answer;", 1, "http"),
        ("\nuse crate::handlers;", 2, "handlers"),
        ("fn f() { let a = crate::cli::run(); }", 1, "cli"),
        (
            "use crate::{\n    model::{self, Key},\n    store::Table,\n    config::Settings,\n};",
            4,
            "config",
        ),
        ("use crate::{model::{Key, User}, admin};", 1, "admin"),
        ("pub(crate) use crate::http as door;", 1, "http"),
        ("#[cfg(test)]\nmod tests {\n    use crate::http;\n}", 3, "http"),
        ("use super::super::http;", 1, "http"),
        ("use super::super::{http, decode};", 1, "http"),
        ("use crate::upstairs;", 1, "upstairs"),
    ] {
        assert_eq!(
            upward(file, text),
            [format!("{line}: pipeline must not use {target}")],
            "{text}"
        );
    }
    assert_eq!(upward(Path::new("src/model/key.rs"), "use crate::store;").len(), 1);
    assert_eq!(upward(Path::new("src/model.rs"), "use super::store;").len(), 1);
    assert_eq!(upward(Path::new("src/config/mod.rs"), "use crate::store;").len(), 1);
    assert_eq!(upward(Path::new("src/http/accept.rs"), "use crate::config;").len(), 1);
    assert_eq!(upward(Path::new("src/http/accept.rs"), "use crate::admin;").len(), 1);
    assert_eq!(upward(Path::new("src/attic/mod.rs"), "").len(), 1);
}

#[test]
fn a_path_that_points_down_is_none() {
    let file = Path::new("src/pipeline/verify.rs");
    for text in [
        "use crate::{accounts::Accounts, model::{Key, http}, store::{self, Table}};",
        "use crate::pipeline::decode;",
        "use super::http;",
        "pub(crate) fn http() {}",
        "pub(in crate::pipeline) fn f() {}",
        "/// See [`crate::http`].",
        "use hyper::http;",
    ] {
        assert_eq!(upward(file, text), [""; 0], "{text}");
    }
    assert_eq!(upward(Path::new("src/main.rs"), "use keyward::cli;"), [""; 0]);
    assert_eq!(upward(Path::new("src/lib.rs"), "use crate::http;"), [""; 0]);
    assert_eq!(upward(Path::new("src/cli/mod.rs"), "use crate::{admin, config, http};"), [""; 0]);
}

#[test]
fn a_file_that_is_too_long_or_says_nothing_is_found() {
    let line = "//! What it is for.\n";
    assert_eq!(misshapen(&line.repeat(MOST_LINES)), None);
    assert!(misshapen(&line.repeat(MOST_LINES + 1)).is_some());
    assert!(misshapen("use std::fs;\n").is_some());
    assert!(misshapen("").is_some());
}

#[test]
#[should_panic(expected = "only 0 files in src")]
fn a_check_of_no_files_fails() {
    files_of(&root().join("no such folder"), "src", 1);
}
