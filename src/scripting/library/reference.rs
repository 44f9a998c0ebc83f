//! Generates the reference of the library and the definitions for editors from the functions' doc
//! comments.

use std::fmt::Write as _;

use rhai::{Engine, Module};

use super::SECTIONS;
use crate::scripting::{
    Function, ScriptKind, ScriptLimits,
    compiler::engine::{self, Variables},
};

/// The text of `definitions.d.rhai`, which editors use for completion and checks.
pub fn definitions() -> String {
    let engine = engine::build(&ScriptLimits::default(), Variables::Strict);
    let text = engine.definitions().include_standard_packages(false).single_file();
    // The engine leaves trailing spaces.
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// The text of `docs/scripting-reference.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Scripting reference\n\n\
        This page lists every function that a script can call. Keyward's source code documents these functions, and this page is \
        generated from there. Scripts can also use the standard library of [Rhai](https://rhai.rs/book/), except `eval`, \
        `import`, `sleep` and `curry`.\n\n\
        ## What Keyward calls\n\n\
        | file | functions |\n|---|---|\n",
    );
    for kind in ScriptKind::ALL {
        let name = if kind == ScriptKind::Resource { "ID" } else { "NAME" };
        let functions: Vec<_> =
            kind.functions().iter().map(|one| format!("`{}`", one.signature())).collect();
        append(&mut out, format_args!("| `{}` | {} |\n", kind.file(name), functions.join(", ")));
    }
    out += "\nA file must define at least one of its functions; the others are optional. When Keyward loads the scripts, it runs \
        all functions with the name `test_…()`. If a test fails, Keyward rejects the whole set of scripts. A script can define more \
        functions as helpers.\n";
    for function in Function::ALL {
        append(&mut out, format_args!("\n- `{}`: {}", function.signature(), returns(function)));
    }
    out.push('\n');
    for section in SECTIONS {
        append(&mut out, format_args!("\n## {}\n\n{}\n", section.title, section.intro));
        for entry in entries((section.module)()) {
            append(&mut out, format_args!("\n### `{}`\n\n{}\n", entry.shape, entry.text));
        }
    }
    out
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a `String` cannot fail.
    let _ = out.write_fmt(text);
}

fn returns(function: Function) -> &'static str {
    match function {
        Function::Header => {
            "returns the credential as a text, or `()` if the request has no credential."
        }
        Function::Decode => "returns the content of the credential as a map.",
        Function::Lookup => "returns a user, a user's number, or `()` if there is no such user.",
        Function::Verify => {
            "returns `true`, `false`, or a map with terms: `scopes: [\"…\"]` restricts the credential to these permissions, and \
             `adopt: \"…\"` stores this text as a key of the user."
        }
        Function::OnRequest | Function::OnAuthenticated => {
            "returns nothing. To refuse the request, it calls `deny()`. The return value `false` is an error: the client gets 503."
        }
        Function::OnPermit => {
            "returns `false` to refuse the request, or `true` or nothing to accept it. The function cannot accept a request that the \
             records refuse. If the resource has `permission = \"script\"`, only `true` accepts the request."
        }
        Function::OnDenied => "changes `denial`. The status must be from 400 to 599.",
        Function::OnResponse => "changes `response`.",
        Function::Handle => {
            "returns `respond(…)`, or a text, a map or an array that is sent with status 200."
        }
        Function::OnKeyCreated | Function::OnUserCreated => {
            "returns nothing. To refuse the creation, it calls `deny()`. If the function fails, nothing is created."
        }
        Function::OnKeyExpiring | Function::OnKeyRevoked | Function::OnFailureLimit => {
            "returns nothing, and cannot refuse anything, because the event has already happened."
        }
    }
}

/// A function in the reference.
pub(in crate::scripting) struct Entry {
    pub shape: String,
    pub text: String,
}

/// The functions of a module, sorted by signature.
pub(in crate::scripting) fn entries(module: Module) -> Vec<Entry> {
    let mut engine = Engine::new_raw();
    super::types(&mut engine);
    engine.register_global_module(module.into());
    let mut entries = engine.collect_fn_metadata(
        None,
        |function| {
            let about = function.metadata;
            let shape = shape(&about.name, &about.params_info, &about.return_type);
            Some(Entry { shape, text: text(&about.comments) })
        },
        false,
    );
    entries.sort_by(|a, b| a.shape.cmp(&b.shape));
    entries
}

/// A doc comment as prose.
fn text(comments: &[impl AsRef<str>]) -> String {
    let lines: Vec<&str> = comments
        .iter()
        .flat_map(|comment| comment.as_ref().lines())
        .map(|line| line.trim_start().trim_start_matches("///").trim())
        .collect();
    lines.join("\n").trim().to_owned()
}

/// `req.header(name: text) → any`, `req.method → text`, `denial.status = number`, `now() → number`.
fn shape(name: &str, parameters: &[impl AsRef<str>], returns: &str) -> String {
    let mut parameters: Vec<(String, String)> = parameters
        .iter()
        .map(|one| {
            let (name, kind) = one.as_ref().split_once(':').unwrap_or((one.as_ref(), ""));
            (name.trim().to_owned(), plain(kind))
        })
        .collect();
    let object = parameters.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let returns = match plain(returns).as_str() {
        "" | "()" => String::new(),
        kind => format!(" → {kind}"),
    };
    if let Some(property) = name.strip_prefix("get$") {
        return format!("{object}.{property}{returns}");
    }
    if let Some(property) = name.strip_prefix("set$") {
        let kind = parameters.get(1).map(|(_, kind)| kind.as_str()).unwrap_or_default();
        return format!("{object}.{property} = {kind}");
    }
    const OBJECTS: [&str; 10] = [
        "req", "identity", "user", "key", "role", "resource", "denial", "response", "reply",
        "secret",
    ];
    let is_method = parameters.first().is_some_and(|(name, kind)| {
        OBJECTS.contains(&name.as_str()) && kind.starts_with(char::is_uppercase)
    });
    // `decide(req)` and `test_identity(user)` are written as functions.
    let is_method = is_method && !name.starts_with("test_") && name != "decide";
    let prefix = if is_method { format!("{}.", parameters.remove(0).0) } else { String::new() };
    let list: Vec<String> =
        parameters.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
    format!("{prefix}{name}({}){returns}", list.join(", "))
}

/// The names of types in the reference.
fn plain(kind: &str) -> String {
    // The macro puts spaces between tokens.
    let kind = kind.replace(' ', "");
    let kind = kind.trim_start_matches('&').trim_start_matches("mut");
    let kind = kind
        .strip_prefix("Checked<")
        .or_else(|| kind.strip_prefix("RhaiResultOf<"))
        .and_then(|inner| inner.strip_suffix('>'))
        .unwrap_or(kind);
    let kind = kind.rsplit("::").next().unwrap_or(kind);
    match kind {
        "str" | "String" | "ImmutableString" | "string" => "text".into(),
        "INT" | "i64" | "int" => "number".into(),
        "bool" => "boolean".into(),
        "Array" | "array" => "array".into(),
        "Map" | "map" => "map".into(),
        "Blob" | "blob" => "blob".into(),
        "Dynamic" | "?" | "var" => "any".into(),
        "FnPtr" | "Fn" => "function".into(),
        other => {
            let names = [
                ("ScriptRequest", "Request"),
                ("IdentityView", "Identity"),
                ("UserView", "User"),
                ("KeyView", "Key"),
                ("RoleView", "Role"),
                ("ResourceView", "Resource"),
                ("ScriptDenial", "Denial"),
                ("ScriptResponse", "Response"),
                ("HandlerResponse", "Reply"),
                ("SecretText", "Secret"),
            ];
            names.iter().find(|(from, _)| *from == other).map_or(other, |(_, to)| to).to_owned()
        }
    }
}
