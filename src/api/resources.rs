//! Resources as clients send them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    fields::FieldReader,
    records::{Editable, set},
};
use crate::model::{
    Handler, MethodRules, PermissionSource, Protocol, Proxy, Resource, Respond, Rules,
};

impl Editable for Resource {
    const PLACE: &'static str = "resources";

    fn read(form: &mut FieldReader) -> Self {
        let id = form.needed_text("id");
        let handler = form.needed_text("handler");
        let handler = match handler.is_empty() {
            true => None,
            false => form.rule(Handler::parse("handler", &handler)),
        };
        Self {
            id,
            enabled: form.flag("enabled").unwrap_or(true),
            handler: handler.unwrap_or(Handler::Respond),
            path: form.text("path"),
            host: form.text("host"),
            rules: rules(form),
            permission: permission_source(form),
            buffer_body: form.flag("buffer_body").unwrap_or_default(),
            respond: form.object("respond", respond),
            proxy: form.object("proxy", proxy),
            rate_limit: form.rate_limit(),
        }
    }
}

fn permission_source(form: &mut FieldReader) -> PermissionSource {
    match form.text("permission").as_deref() {
        None | Some("records") => PermissionSource::Records,
        Some("script") => PermissionSource::Script,
        Some(other) => {
            let message = format!("{other:?} does not say who decides.");
            form.reject("permission", message, "Use records or script.");
            PermissionSource::Records
        }
    }
}

fn rules(form: &mut FieldReader) -> Rules {
    match form.text("granularity").as_deref() {
        None | Some("resource") => Rules::Resource {
            methods: set(form.words("methods")),
            formats: set(form.words("formats")),
            authentication: set(form.words("authentication")),
            permissions: permissions(form),
        },
        Some("method") => Rules::Method { methods: method_rules(form) },
        Some(other) => {
            let message = format!("{other:?} is not a granularity.");
            form.reject("granularity", message, "Use resource or method.");
            for name in ["methods", "formats", "authentication", "permissions"] {
                form.take(name);
            }
            Rules::Method { methods: BTreeMap::new() }
        }
    }
}

fn permissions(form: &mut FieldReader) -> BTreeMap<String, BTreeSet<String>> {
    let mut permissions = BTreeMap::new();
    for (method, value) in form.entries("permissions").unwrap_or_default() {
        let words = match value {
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()
            }
            _ => None,
        };
        match words {
            Some(words) => drop(permissions.insert(method, words)),
            None => form.reject(
                &format!("permissions.{method}"),
                "This is not a list of permissions.",
                "Send a list of strings.",
            ),
        }
    }
    permissions
}

fn method_rules(form: &mut FieldReader) -> BTreeMap<String, MethodRules> {
    let mut methods = BTreeMap::new();
    for (method, value) in form.entries("methods").unwrap_or_default() {
        let rules = form.entry(&format!("methods.{method}"), value, |form| MethodRules {
            formats: set(form.words("formats")),
            authentication: set(form.words("authentication")),
            permissions: set(form.words("permissions")),
        });
        methods.insert(method, rules);
    }
    methods
}

fn respond(form: &mut FieldReader) -> Respond {
    let default = Respond::default();
    Respond {
        status: form.number("status").unwrap_or(default.status),
        content_type: form.text("content_type").unwrap_or(default.content_type),
        body: form.text("body").unwrap_or(default.body),
    }
}

fn proxy(form: &mut FieldReader) -> Proxy {
    let default = Proxy::default();
    Proxy {
        upstreams: form.words("upstreams").unwrap_or_default(),
        protocol: protocol(form),
        ca: form.text("ca"),
        strip_prefix: form.text("strip_prefix"),
        preserve_host: form.flag("preserve_host").unwrap_or(default.preserve_host),
        keep_credential: form.flag("keep_credential").unwrap_or(default.keep_credential),
        upgrades: form.words("upgrades").map_or(default.upgrades, |words| set(Some(words))),
        connect_seconds: form.number("connect_seconds").unwrap_or(default.connect_seconds),
        response_seconds: form.number("response_seconds").unwrap_or(default.response_seconds),
        idle_seconds: form.number("idle_seconds").unwrap_or(default.idle_seconds),
        eject_after: form.number("eject_after").unwrap_or(default.eject_after),
        eject_seconds: form.number("eject_seconds").unwrap_or(default.eject_seconds),
    }
}

fn protocol(form: &mut FieldReader) -> Protocol {
    match form.text("protocol").as_deref() {
        None | Some("http1") => Protocol::Http1,
        Some("http2") => Protocol::Http2,
        Some(other) => {
            form.reject("protocol", format!("{other:?} is not a protocol."), "Use http1 or http2.");
            Protocol::default()
        }
    }
}
