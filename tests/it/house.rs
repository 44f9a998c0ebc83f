//! Checks on the source tree: imports point down, no files import each other in a circle, files are
//! short, and each file says what it is for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, UseTree, Visibility, spanned::Spanned as _, visit::Visit};

const BELOW_LAYER: &[&str] = &[
    "http",
    "handlers",
    "pipeline",
    "accounts",
    "scripting",
    "directory",
    "store",
    "limits",
    "model",
];
/// The folders of `src/`, each with the folders whose items it may import.
const FOLDERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("files", &[]),
    ("tls", &["files"]),
    ("limits", &["model"]),
    ("store", &["files", "limits", "model"]),
    ("directory", &["store", "limits", "model"]),
    ("scripting", &["files", "limits", "model"]),
    ("accounts", &["scripting", "directory", "store", "limits", "files", "model"]),
    ("webhooks", &["accounts", "tls", "model"]),
    ("pipeline", &["accounts", "scripting", "directory", "store", "limits", "model"]),
    (
        "handlers",
        &["pipeline", "accounts", "scripting", "directory", "store", "limits", "tls", "model"],
    ),
    ("http", &["handlers", "pipeline", "accounts", "scripting", "directory", "limits", "model"]),
    ("telemetry", &["pipeline", "limits", "model"]),
    ("layer", BELOW_LAYER),
    (
        "testing",
        &["embedding", "layer", "pipeline", "accounts", "scripting", "store", "limits", "model"],
    ),
    ("embedding", &["layer", "pipeline", "accounts", "scripting", "store", "limits", "model"]),
    (
        "server",
        &[
            "http",
            "handlers",
            "pipeline",
            "accounts",
            "scripting",
            "directory",
            "store",
            "limits",
            "tls",
            "model",
        ],
    ),
    ("api", BELOW_LAYER),
    (
        "config",
        &[
            "server",
            "webhooks",
            "telemetry",
            "http",
            "handlers",
            "pipeline",
            "accounts",
            "scripting",
            "limits",
            "tls",
            "files",
            "model",
        ],
    ),
    ("fuzzing", &["cli", "api", "server", "http", "handlers", "store", "model"]),
    (
        "cli",
        &[
            "config",
            "api",
            "server",
            "http",
            "handlers",
            "webhooks",
            "pipeline",
            "accounts",
            "scripting",
            "directory",
            "store",
            "limits",
            "telemetry",
            "tls",
            "files",
            "model",
        ],
    ),
];
/// Exported macros, which are at the crate's root.
const MACROS: &[&str] = &["store_contract"];
/// Files of `src/` that may import everything.
const ROOTS: &[&str] = &["lib", "main"];
const MAX_LINES: usize = 500;
const MAX_FILES: usize = 15;
const MAX_COLUMNS: usize = 100;
/// Words that no comment begins with, because a sentence that begins with them has no subject.
const RIDDLES: &[&str] = &["What", "Whoever", "Whom", "Who", "Whose", "The same", "It is told"];

#[test]
fn imports_point_down() {
    let problems = check_each(files("src"), upward_imports);
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = files("src").into_iter().map(|file| {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        (module_path(&file), text)
    });
    let found = circles(&sources.collect());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let files = ["src", "tests", "examples", "benches"].into_iter().flat_map(files);
    let problems = check_each(files, |_, text| shape_problems(text));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn comments_fit_the_page_and_begin_with_a_subject() {
    let files = ["src", "tests", "examples", "benches"].into_iter().flat_map(files);
    let problems = check_each(files, |_, text| comment_problems(text));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn folders_hold_few_files() {
    let mut count: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for file in files("src") {
        *count.entry(file.parent().unwrap().to_owned()).or_default() += 1;
    }
    count.retain(|_, files| *files > MAX_FILES);
    assert!(count.is_empty(), "more than {MAX_FILES} files: {count:?}");
}

/// The problems that `check` finds in each file, with the file's path before them.
fn check_each(
    files: impl IntoIterator<Item = PathBuf>,
    check: impl Fn(&Path, &str) -> Vec<String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let found = check(&file, &text);
        problems.extend(found.into_iter().map(|found| format!("{}:{found}", file.display())));
    }
    problems
}

/// A file that is too long, or that does not begin with a sentence about its purpose.
fn shape_problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!("1: {lines} lines; at most {MAX_LINES}"));
    }
    let head = text.lines().map_while(|line| line.strip_prefix("//! "));
    let head = head.collect::<Vec<_>>().join(" ");
    let is_sentence = head.contains(". ") || head.ends_with(['.', ':']);
    if !is_sentence || head.split_whitespace().count() < 3 {
        problems.push("1: the file does not begin with `//! ` and a sentence".into());
    }
    problems
}

/// Comment lines that are too wide, and comments that begin without a subject.
fn comment_problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut is_inside = false;
    for (number, line) in text.lines().enumerate() {
        let comment = line.trim_start().strip_prefix("//");
        let words = comment.map_or("", |comment| comment.trim_start_matches(['/', '!']).trim());
        if comment.is_some() && line.chars().count() > MAX_COLUMNS {
            problems.push(format!("{}: wider than {MAX_COLUMNS} columns", number + 1));
        }
        let begins = |riddle: &&&str| {
            words
                .strip_prefix(**riddle)
                .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        };
        if let Some(riddle) = RIDDLES.iter().find(begins)
            && !is_inside
        {
            problems.push(format!("{}: the comment begins with {riddle:?}", number + 1));
        }
        is_inside = comment.is_some();
    }
    problems
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder, relative to the root.
fn files(folder: &str) -> Vec<PathBuf> {
    let least = match folder {
        "src" => 30,
        "tests" => 2,
        _ => 1,
    };
    files_of(root(), folder, least)
}

/// # Panics
/// Panics if there are fewer than `least` files, because a check of no files would always pass.
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

/// The path of a file's module: `src/store/sled/marker.rs` is `store`, `sled`, `marker`.
fn module_path(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").unwrap().with_extension("");
    let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// The imports of a file of `src/` that its folder must not have.
fn upward_imports(file: &Path, text: &str) -> Vec<String> {
    let module = module_path(file);
    let folder = module.first().map_or("lib", String::as_str);
    if ROOTS.contains(&folder) {
        return Vec::new();
    }
    let Some((_, below)) = FOLDERS.iter().find(|(name, _)| *name == folder) else {
        return vec![format!("1: the folder {folder} is not in FOLDERS")];
    };
    let mut problems = BTreeSet::new();
    for Import { line, path, .. } in imports(&module, text) {
        let target = path.first().map(String::as_str);
        let Some(target) = target.filter(|target| !MACROS.contains(target)) else { continue };
        if target != folder && !below.contains(&target) {
            problems.insert(format!("{line}: {folder} must not use {target}"));
        }
    }
    problems.into_iter().collect()
}

/// A path that begins in this crate.
struct Import {
    line: usize,
    /// The names in the path, from the crate's root.
    path: Vec<String>,
    /// The name under which `pub use` exports it from the file.
    exported: Option<String>,
    is_test: bool,
}

/// All paths of a file that begin in this crate, including paths in macro arguments.
fn imports(module: &[String], text: &str) -> Vec<Import> {
    let file = syn::parse_file(text).unwrap();
    let children = file.items.iter().filter_map(|item| match item {
        Item::Mod(child) if child.content.is_none() => Some(child.ident.to_string()),
        _ => None,
    });
    let mut reader = Reader {
        module: module.to_vec(),
        children: children.collect(),
        is_test: false,
        found: Vec::new(),
    };
    reader.visit_file(&file);
    reader.found
}

struct Reader {
    module: Vec<String>,
    children: BTreeSet<String>,
    is_test: bool,
    found: Vec<Import>,
}

impl Reader {
    fn add(&mut self, line: usize, names: &[String], exported: Option<String>) {
        let Some(first) = names.first() else { return };
        let supers = names.iter().take_while(|name| *name == "super").count();
        let (base, rest) = match first.as_str() {
            "crate" => (0, &names[1..]),
            "self" => (self.module.len(), &names[1..]),
            "super" => (self.module.len().saturating_sub(supers), &names[supers..]),
            _ if self.children.contains(first) => (self.module.len(), names),
            _ => return,
        };
        let mut path = self.module[..base].to_vec();
        path.extend(rest.iter().filter(|name| *name != "self" && *name != "*").cloned());
        let is_test = self.is_test;
        self.found.push(Import { line, path, exported, is_test });
    }

    fn tree(&mut self, tree: &UseTree, before: &mut Vec<String>, is_exported: bool) {
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before, is_exported);
                before.pop();
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(tree, before, is_exported));
            }
            UseTree::Name(name) => self.leaf(line, before, &name.ident, &name.ident, is_exported),
            UseTree::Rename(name) => {
                self.leaf(line, before, &name.ident, &name.rename, is_exported);
            }
            UseTree::Glob(_) => self.add(line, &before.clone(), None),
        }
    }

    fn leaf(
        &mut self,
        line: usize,
        before: &[String],
        name: &syn::Ident,
        shown: &syn::Ident,
        is_exported: bool,
    ) {
        let names = [before, &[name.to_string()]].concat();
        self.add(line, &names, is_exported.then(|| shown.to_string()));
    }

    /// Paths in a macro's arguments: `crate::a::b` is a chain of names and pairs of colons.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut chain: Vec<String> = Vec::new();
        let mut colons = 2;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 => {
                    chain.push(name.to_string());
                    colons = 0;
                    if chain.len() > 1 && chain[0] != "self" {
                        self.add(name.span().start().line, &chain.clone(), None);
                    }
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' && !chain.is_empty() => colons += 1,
                TokenTree::Ident(name) => {
                    chain = vec![name.to_string()];
                    colons = 0;
                }
                other => {
                    chain.clear();
                    colons = 2;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
    }
}

impl Visit<'_> for Reader {
    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        let is_exported = !matches!(item.vis, Visibility::Inherited);
        self.tree(&item.tree, &mut Vec::new(), is_exported);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if path.leading_colon.is_none() && names.len() > 1 {
            self.add(path.span().start().line, &names, None);
        }
        syn::visit::visit_path(self, path);
    }

    /// Skips the path in `pub(in crate::a)`, because this path is not an import.
    fn visit_vis_restricted(&mut self, _: &syn::VisRestricted) {}

    fn visit_macro(&mut self, item: &syn::Macro) {
        self.tokens(item.tokens.clone());
    }

    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if item.content.is_none() {
            return;
        }
        let outer = std::mem::replace(&mut self.is_test, true);
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
        self.is_test = outer;
    }
}

/// The groups of files that import each other in a circle. Tests are left out, and so are imports
/// between a parent module and its children: a parent declares and re-exports its children, and
/// children use the types of their parent.
fn circles(sources: &BTreeMap<Vec<String>, String>) -> Vec<String> {
    let is_test = |module: &[String]| module.iter().any(|name| name == "tests");
    let mut edges: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    let all: BTreeMap<&[String], Vec<Import>> = sources
        .iter()
        .filter(|(module, _)| !is_test(module))
        .map(|(module, text)| (module.as_slice(), imports(module, text)))
        .collect();
    let exports: BTreeMap<Vec<String>, &[String]> = all
        .iter()
        .flat_map(|(module, imports)| {
            imports.iter().filter_map(|import| {
                let name = import.exported.clone()?;
                Some(([*module, &[name]].concat(), import.path.as_slice()))
            })
        })
        .collect();
    for (module, imports) in &all {
        let targets = imports
            .iter()
            .filter(|import| !import.is_test && import.exported.is_none())
            .filter_map(|import| file_of(&import.path, &all, &exports))
            .filter(|target| !target.starts_with(module) && !module.starts_with(target));
        edges.insert(module, targets.collect());
    }
    let mut found = BTreeSet::new();
    for start in edges.keys() {
        let reached = reachable(start, &edges);
        if reached.contains(start) {
            let circle = reached.iter().filter(|one| reachable(one, &edges).contains(start));
            found.insert(circle.map(|module| module.join("::")).collect::<Vec<_>>().join(", "));
        }
    }
    found.into_iter().collect()
}

/// The file that defines the item at a path, through re-exports.
fn file_of<'a>(
    path: &[String],
    all: &BTreeMap<&'a [String], Vec<Import>>,
    exports: &BTreeMap<Vec<String>, &[String]>,
) -> Option<&'a [String]> {
    for length in (1..=path.len()).rev() {
        if let Some(target) = exports.get(&path[..length])
            && !target.starts_with(&path[..length])
        {
            return file_of(&[*target, &path[length..]].concat(), all, exports);
        }
        if let Some((module, _)) = all.get_key_value(&path[..length]) {
            return Some(module);
        }
    }
    None
}

fn reachable<'a>(
    start: &[String],
    edges: &BTreeMap<&'a [String], BTreeSet<&'a [String]>>,
) -> BTreeSet<&'a [String]> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&[String]> = edges[start].iter().copied().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(edges.get(module).into_iter().flatten());
        }
    }
    reached
}

mod tests;
