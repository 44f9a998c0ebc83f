//! Checks the README and the manual: the commands work, the shown output is real, and the links
//! have targets.
//!
//! The test runs each fenced block marked `sh`. The blocks of a page run in one shell, in their
//! order, against a new server. A block marked `sh fails` must fail. A block marked `json output`
//! or `text output` shows the output of the block before it, where `…` matches any text. Blocks
//! that begin with `cargo` build or test the program, and are skipped.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{Server, Site};

/// Shell code that runs before the first block of a page, and makes curl fail on an HTTP error.
const PROLOGUE: &str =
    "set -euo pipefail\ncurl() { command curl --fail-with-body -sS --max-time 30 \"$@\"; }\n";
/// The addresses of the listeners in the manual.
const PUBLIC: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:8081";
const VERIFY: &str = "127.0.0.1:8082";

/// A fenced block of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The line number of the opening fence, counted from 1.
    line: usize,
    /// The text after the opening fence.
    mark: String,
    text: String,
}

impl Block {
    fn is_run(&self) -> bool {
        ["sh", "sh fails"].contains(&self.mark.as_str()) && !self.text.starts_with("cargo ")
    }
}

/// The root folder of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and every page of the manual, relative to the project's root.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    let mut pages: Vec<PathBuf> =
        names.filter(|name| name.extension().is_some_and(|end| end == "md")).collect();
    pages.push("README.md".into());
    pages.sort();
    assert!(pages.len() >= 10, "only {pages:?}");
    pages
}

fn read_page(page: &Path) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{}: {e}", page.display()))
}

/// The fenced blocks of a page.
fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), is_inside) {
            (Some(mark), false) => {
                found.push(Block {
                    line: index + 1,
                    mark: mark.trim().into(),
                    text: String::new(),
                });
                is_inside = true;
            }
            (Some(_), true) => is_inside = false,
            (None, true) => {
                let text = &mut found.last_mut().unwrap().text;
                text.push_str(line);
                text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!is_inside, "the last block has no closing fence");
    found
}

/// Runs the blocks of a page. Returns the problems, the number of blocks that ran, and the number
/// of outputs that were compared.
fn run(page: &Path) -> (Vec<String>, usize, usize) {
    let blocks = blocks(&read_page(page));
    let server = Server::start(Site::new(), String::new());
    let (public, admin) = (server.public.to_string(), server.admin.to_string());
    let verify = server.verify.unwrap().to_string();
    let script =
        script(&blocks).replace(PUBLIC, &public).replace(ADMIN, &admin).replace(VERIFY, &verify);
    let status = server.site.shell(&script).status().unwrap();
    let read = |name: String| {
        let text = fs::read(server.site.path().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        text.replace(&public, PUBLIC).replace(&admin, ADMIN).replace(&verify, VERIFY)
    };
    let mut problems = Vec::new();
    if !status.success() {
        let failed: usize = read("block-index".into()).trim().parse().unwrap();
        let output = [read(format!("{failed}.out")), read(format!("{failed}.err"))].concat();
        let line = blocks[failed].line;
        problems.push(format!("{}:{line}: {status}\n{output}", page.display()));
        return (problems, 0, 0);
    }
    let mut last = None;
    let (mut ran, mut compared) = (0, 0);
    for (index, block) in blocks.iter().enumerate() {
        if block.is_run() {
            last = Some(index);
            ran += 1;
        } else if let Some(format) = block.mark.strip_suffix(" output") {
            let command = last.expect("an output block follows the block of its command");
            let printed = read(format!("{command}.out"));
            let printed = if printed.is_empty() { read(format!("{command}.err")) } else { printed };
            compared += 1;
            if !matches(format, &block.text, &printed) {
                let (page, line) = (page.display(), block.line);
                problems.push(format!(
                    "{page}:{line}: the manual shows another output than\n{printed}"
                ));
            }
        }
    }
    (problems, ran, compared)
}

/// Combines all blocks in one script, so that later blocks see the variables of earlier blocks.
fn script(blocks: &[Block]) -> String {
    let mut script = PROLOGUE.to_owned();
    for (index, Block { mark, text, .. }) in blocks.iter().enumerate().filter(|(_, b)| b.is_run()) {
        // Writing to a String does not fail.
        let _ = match mark.as_str() {
            "sh" => writeln!(
                script,
                "echo {index} >block-index\n{{\n{text}}} >{index}.out 2>{index}.err"
            ),
            // The block runs in a subshell before the `if`, because `set -e` has no effect in the
            // condition of an `if`.
            _ => writeln!(
                script,
                "echo {index} >block-index\nset +e\n(\nset -e\n{text}) >{index}.out 2>{index}.err\ncode=$?\nset -e\nif [ $code = 0 ]; then echo 'this did not fail' >>{index}.err; exit 1; fi"
            ),
        };
    }
    script
}

/// Whether the printed output matches the output that the manual shows.
fn matches(format: &str, shown: &str, printed: &str) -> bool {
    match format {
        "json" => {
            let shown: Value =
                serde_json::from_str(shown).unwrap_or_else(|e| panic!("{e}: {shown}"));
            serde_json::from_str(printed).is_ok_and(|printed| matches_json(&shown, &printed))
        }
        "text" => matches_text(shown.trim_end(), printed.trim_end()),
        other => panic!("{other} is not an output format"),
    }
}

/// Whether two JSON values are equal, where `…` in `shown` matches anything.
fn matches_json(shown: &Value, printed: &Value) -> bool {
    match (shown, printed) {
        (Value::String(shown), _) if shown == "…" => true,
        (Value::String(shown), Value::String(printed)) => matches_text(shown, printed),
        (Value::Array(shown), Value::Array(printed)) => {
            shown.len() == printed.len()
                && shown.iter().zip(printed).all(|(a, b)| matches_json(a, b))
        }
        (Value::Object(shown), Value::Object(printed)) => {
            shown.len() == printed.len()
                && shown.iter().all(|(name, shown)| {
                    printed.get(name).is_some_and(|printed| matches_json(shown, printed))
                })
        }
        _ => shown == printed,
    }
}

/// Whether a text matches a pattern, in which each `…` matches any text.
fn matches_text(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(start) => rest = &rest[start + part.len()..],
            None => return false,
        }
    }
    false
}

#[test]
fn the_commands_of_the_manual_work_and_print_the_shown_output() {
    let (mut problems, mut ran, mut compared) = (Vec::new(), 0, 0);
    for page in pages() {
        let (found, runs, comparisons) = run(&page);
        problems.extend(found);
        ran += runs;
        compared += comparisons;
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(ran >= 40 && compared >= 15, "{ran} blocks were run, {compared} compared");
}

#[test]
fn relative_links_have_a_target() {
    let mut problems = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read_page(&page);
        for target in links(&prose(&text)).filter(|target| !target.contains("://")) {
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let found = fs::read_to_string(root().join(&path));
            let exists = match found {
                Err(_) => root().join(&path).is_dir() && anchor.is_empty(),
                Ok(text) => {
                    anchor.is_empty() || anchors(&prose(&text)).any(|found| found == anchor)
                }
            };
            if !exists {
                problems.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(count >= 20, "only {count} links");
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let readme = read_page(Path::new("README.md"));
    let linked: Vec<&str> = links(&readme).collect();
    for page in pages().iter().filter(|page| page.starts_with("docs")) {
        assert!(linked.contains(&page.to_str().unwrap()), "{}", page.display());
    }
}

#[test]
fn every_error_code_is_in_the_manual() {
    let manual: String = pages().iter().map(|page| read_page(page)).collect();
    let mut count = 0;
    for folder in ["pipeline", "http", "server", "layer", "handlers", "api"] {
        for file in rust_files(&root().join("src").join(folder)) {
            let source = fs::read_to_string(&file).unwrap();
            let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
            for code in codes(source) {
                count += 1;
                let (quoted, file) = (format!("`{code}`"), file.display());
                assert!(manual.contains(&quoted), "{code} of {file} is not explained");
            }
        }
    }
    assert!(count >= 30, "only {count} codes");
}

/// The string literals of a source file that look like an error code.
fn codes(source: &str) -> impl Iterator<Item = &str> {
    source.split('"').skip(1).step_by(2).filter(|text| {
        text.contains('_') && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    })
}

/// All Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text of a page without the fenced blocks.
fn prose(text: &str) -> String {
    let mut is_inside = false;
    let keep = |line: &&str| {
        let is_fence = line.starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// The targets of all links in a text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The anchors of a page's headings. An anchor is the heading in lower case, without punctuation
/// and with hyphens instead of spaces.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|heading| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[test]
fn a_pattern_matches_only_texts_of_its_form() {
    for (pattern, text) in
        [("a", "a"), ("a…", "abc"), ("…c", "abc"), ("a…c…e", "abcde"), ("…", ""), ("a…b", "a\nb")]
    {
        assert!(matches_text(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in
        [("a", "ab"), ("a", ""), ("a…c", "abcd"), ("…x…", "abc"), ("ab…bc", "abc")]
    {
        assert!(!matches_text(pattern, text), "{pattern} {text}");
    }
    assert!(matches("json", r#"{"a":"…","b":[1]}"#, r#"{"b":[1],"a":{}}"#));
    for printed in [r#"{"a":1,"b":[2]}"#, r#"{"a":1}"#, r#"{"a":1,"b":[1],"c":1}"#, "x"] {
        assert!(!matches("json", r#"{"a":"…","b":[1]}"#, printed), "{printed}");
    }
}

#[test]
fn a_block_with_an_unexpected_result_fails_the_script() {
    let server = Server::new();
    let block = |mark: &str, text: &str| Block { line: 1, mark: mark.into(), text: text.into() };
    for (blocks, is_good) in [
        ([block("sh", "X=1\n"), block("sh", "test $X = 1\n")], true),
        ([block("sh", "true\n"), block("sh fails", "false\ntrue\n")], true),
        ([block("sh", "true\n"), block("sh fails", "true\n")], false),
        ([block("sh", "false\ntrue\n"), block("sh", "true\n")], false),
        ([block("sh", "curl http://127.0.0.1:8081/nothing\n"), block("text", "")], false),
    ] {
        let script = script(&blocks).replace(ADMIN, &server.admin.to_string());
        let status = server.site.shell(&script).status().unwrap();
        assert_eq!(status.success(), is_good, "{blocks:?}");
    }
}
