//! Tests of the checks on the source tree: each check finds its kind of fault.

use super::*;

#[test]
fn an_import_that_points_up_is_found() {
    let file = Path::new("src/pipeline/verify.rs");
    for (text, line, target) in [
        ("use crate::server::Service;", 1, "server"),
        ("\nuse crate::handlers;", 2, "handlers"),
        ("fn f() { let a = crate::cli::run(); }", 1, "cli"),
        ("fn f() { println!(\"{}\", crate::cli::run()); }", 1, "cli"),
        (
            "use crate::{\n    model::{self, Key},\n    store::Table,\n    config::Settings,\n};",
            4,
            "config",
        ),
        ("use crate::{model::{Key, User}, api};", 1, "api"),
        ("pub(crate) use crate::server as listener;", 1, "server"),
        ("#[cfg(test)]\nmod tests {\n    use crate::http;\n}", 3, "http"),
        ("use super::super::http;", 1, "http"),
        ("use super::super::{http, model};", 1, "http"),
        ("use crate::upstairs;", 1, "upstairs"),
    ] {
        assert_eq!(
            upward_imports(file, text),
            [format!("{line}: pipeline must not use {target}")],
            "{text}"
        );
    }
    assert_eq!(upward_imports(Path::new("src/model/key.rs"), "use crate::store;").len(), 1);
    assert_eq!(upward_imports(Path::new("src/model.rs"), "use super::store;").len(), 1);
    assert_eq!(upward_imports(Path::new("src/config/mod.rs"), "use crate::store;").len(), 1);
    assert_eq!(upward_imports(Path::new("src/server/accept.rs"), "use crate::config;").len(), 1);
    assert_eq!(upward_imports(Path::new("src/server/accept.rs"), "use crate::api;").len(), 1);
    assert_eq!(upward_imports(Path::new("src/attic/mod.rs"), "").len(), 1);
}

#[test]
fn an_import_that_points_down_is_accepted() {
    let file = Path::new("src/pipeline/verify.rs");
    for text in [
        "use crate::{accounts::Accounts, model::{Key, http}, store::{self, Table}};",
        "use crate::pipeline::decode;",
        "use super::http;",
        "pub(crate) fn http() {}",
        "pub(in crate::pipeline) fn f() {}",
        "/// See [`crate::http`].\nstruct A;",
        "use hyper::http;",
    ] {
        assert_eq!(upward_imports(file, text), [""; 0], "{text}");
    }
    assert_eq!(upward_imports(Path::new("src/main.rs"), "use keyward::cli;"), [""; 0]);
    assert_eq!(upward_imports(Path::new("src/lib.rs"), "use crate::http;"), [""; 0]);
    let cli = "use crate::{api, config, http};";
    assert_eq!(upward_imports(Path::new("src/cli/mod.rs"), cli), [""; 0]);
}

fn sources(files: &[(&str, &str)]) -> BTreeMap<Vec<String>, String> {
    let modules = files.iter().map(|(file, text)| (module_path(Path::new(file)), (*text).into()));
    modules.collect()
}

#[test]
fn a_circle_between_files_is_found() {
    let two = [
        ("src/a/mod.rs", "mod b;\nmod c;\npub use b::B;"),
        ("src/a/b.rs", "use super::c::C;\npub struct B;"),
        ("src/a/c.rs", "use super::B;\npub struct C;"),
    ];
    assert_eq!(circles(&sources(&two)), ["a::b, a::c"]);
    let three = [
        ("src/a.rs", "use crate::b::B;"),
        ("src/b.rs", "fn f() { crate::c::f(); }"),
        ("src/c.rs", "fn f() { dbg!(crate::a::A); }"),
        ("src/d.rs", "use crate::a::A;"),
    ];
    assert_eq!(circles(&sources(&three)), ["a, b, c"]);
}

#[test]
fn a_parent_and_its_children_and_tests_are_no_circle() {
    let files = [
        ("src/a/mod.rs", "mod b;\nuse b::B;\npub struct A;"),
        ("src/a/b.rs", "use super::A;\npub struct B;"),
        ("src/c.rs", "use crate::a::A;"),
        ("src/a/tests.rs", "use crate::c::C;"),
        ("src/d.rs", "pub struct D;\n#[cfg(test)]\nmod tests {\n    use crate::e::E;\n}"),
        ("src/e.rs", "use crate::d::D;"),
    ];
    assert_eq!(circles(&sources(&files)), [""; 0]);
}

#[test]
fn a_file_that_is_too_long_or_says_nothing_is_found() {
    let line = "//! A file about lines.\n";
    assert_eq!(shape_problems(&line.repeat(MAX_LINES)), [""; 0]);
    assert_eq!(shape_problems(&line.repeat(MAX_LINES + 1)).len(), 1);
    for text in ["use std::fs;\n", "", "//! TODO.\n", "//! a file\n", "//!\n//! A file about it.\n"]
    {
        assert_eq!(shape_problems(text).len(), 1, "{text}");
    }
}

#[test]
fn a_comment_that_is_wide_or_begins_without_a_subject_is_found() {
    let wide = format!("    /// {}\n", "a".repeat(MAX_COLUMNS));
    for (text, count) in [
        ("/// What it is.\n", 1),
        ("//! Whoever asks.\n", 1),
        ("    // The same, twice.\n", 1),
        (wide.as_str(), 1),
        ("/// The key.\n/// What follows a line is no beginning.\n", 0),
        ("/// Whatever.\n", 0),
        ("let text = \"What\";\n", 0),
    ] {
        assert_eq!(comment_problems(text).len(), count, "{text}");
    }
}

#[test]
#[should_panic(expected = "only 0 files in src")]
fn a_check_of_no_files_fails() {
    files_of(&root().join("no such folder"), "src", 1);
}
