//! Reads the fields of resources that clients send.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    ApiRequest,
    fields::FieldReader,
    records::{Editable, set},
    response,
};
use crate::{
    accounts::{Accounts, PolicyRecord as _},
    model::{
        Ambiguous, BodyLimit, BodyRules, Cors, ForwardedField, Handler, MethodRules, PathOptions,
        PermissionSource, PreflightMode, Protocol, Proxy, Resource, Respond, Rules,
        method_of_record,
    },
    pipeline::Denial,
};

impl Editable for Resource {
    const PATH: &'static str = "resources";

    fn read(reader: &mut FieldReader) -> Self {
        let id = reader.required_text("id");
        let handler = reader.required_text("handler");
        let handler = if handler.is_empty() {
            None
        } else {
            reader.rule(Handler::parse("handler", &handler))
        };
        Self {
            id,
            enabled: reader.flag("enabled").unwrap_or(true),
            handler: handler.unwrap_or(Handler::Respond),
            path: reader.text("path"),
            host: reader.text("host").map(Self::host_of_record),
            path_options: PathOptions {
                encoded_slashes: treatment(reader, "encoded_slashes"),
                semicolons: treatment(reader, "semicolons"),
            },
            rules: rules(reader),
            applications: reader.words("applications").unwrap_or_default(),
            permission: permission_source(reader),
            buffer_body: reader.flag("buffer_body").unwrap_or_default(),
            body: body_rules(reader),
            respond: reader.object("respond", respond),
            proxy: reader.object("proxy", proxy),
            rate_limit: reader.rate_limit(),
            cors: reader.object("cors", cors),
        }
    }

    fn advice(before: Option<&Self>, after: &Self, accounts: &Accounts) -> Vec<String> {
        accounts.advice_on_resource(before, after)
    }

    /// Refuses a change that opens a path which another resource guards, unless the query says
    /// `opens_guarded=true`.
    fn check_write(
        request: &ApiRequest<'_>,
        before: Option<&Self>,
        after: Option<&Self>,
    ) -> Result<(), Denial> {
        // A client that may not make the change at all learns nothing about other resources.
        Self::check_authority(&request.accounts, before, after).map_err(response::denial)?;
        let query = request.head.uri.query().unwrap_or_default();
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        let is_known = parameters.any(|(name, value)| name == OPENS_GUARDED && value == "true");
        // The writer reports an invalid record.
        let is_invalid = after.is_some_and(|record| !record.check().is_empty());
        if is_known || is_invalid {
            return Ok(());
        }
        let opened = request.accounts.opened_guards(before, after);
        if opened.is_empty() { Ok(()) } else { Err(response::opens_guarded(&opened)) }
    }
}

/// The query parameter of a change that knowingly opens a path which another resource guards.
pub(super) const OPENS_GUARDED: &str = "opens_guarded";

fn treatment(reader: &mut FieldReader, name: &'static str) -> Ambiguous {
    let text = reader.text(name);
    let treatment = text.and_then(|text| reader.rule(Ambiguous::parse(name, &text)));
    treatment.unwrap_or_default()
}

/// A list of methods, each in its one spelling.
fn methods(reader: &mut FieldReader) -> BTreeSet<String> {
    let words = reader.words("methods").unwrap_or_default();
    words.into_iter().map(method_of_record).collect()
}

/// Inserts the rules of a method, which must be new.
fn insert<T>(
    reader: &mut FieldReader,
    methods: &mut BTreeMap<String, T>,
    field: &str,
    method: String,
    rules: T,
) {
    let method = method_of_record(method);
    if methods.contains_key(&method) {
        let message = format!("The method {method} is listed twice.");
        reader.reject(&format!("{field}.{method}"), message, "Keep one of the two entries.");
    }
    methods.insert(method, rules);
}

fn body_rules(reader: &mut FieldReader) -> BodyRules {
    let mut limit = |name: &'static str| {
        let value = reader.take(name)?;
        reader.rule(BodyLimit::read(name, &value))
    };
    BodyRules { bytes: limit("body_bytes"), read_seconds: limit("body_read_seconds") }
}

fn permission_source(reader: &mut FieldReader) -> PermissionSource {
    match reader.text("permission").as_deref() {
        None | Some("records") => PermissionSource::Records,
        Some("script") => PermissionSource::Script,
        Some(other) => {
            let message = format!("{other:?} is not a source of permissions.");
            reader.reject("permission", message, "Use records or script.");
            PermissionSource::Records
        }
    }
}

fn rules(reader: &mut FieldReader) -> Rules {
    match reader.text("granularity").as_deref() {
        None | Some("resource") => Rules::Resource {
            methods: methods(reader),
            formats: set(reader.words("formats")),
            authentication: set(reader.words("authentication")),
            permissions: permissions(reader),
        },
        Some("method") => Rules::Method { methods: method_rules(reader) },
        Some(other) => {
            let message = format!("{other:?} is not a granularity.");
            reader.reject("granularity", message, "Use resource or method.");
            for name in ["methods", "formats", "authentication", "permissions"] {
                reader.take(name);
            }
            Rules::Method { methods: BTreeMap::new() }
        }
    }
}

fn permissions(reader: &mut FieldReader) -> BTreeMap<String, BTreeSet<String>> {
    let mut permissions = BTreeMap::new();
    for (method, value) in reader.entries("permissions").unwrap_or_default() {
        let words = match value {
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()
            }
            _ => None,
        };
        match words {
            Some(words) => insert(reader, &mut permissions, "permissions", method, words),
            None => reader.reject(
                &format!("permissions.{method}"),
                "This is not a list of permissions.",
                "Send a list of strings.",
            ),
        }
    }
    permissions
}

fn method_rules(reader: &mut FieldReader) -> BTreeMap<String, MethodRules> {
    let mut methods = BTreeMap::new();
    for (method, value) in reader.entries("methods").unwrap_or_default() {
        let rules = reader.entry(&format!("methods.{method}"), value, |reader| MethodRules {
            formats: set(reader.words("formats")),
            authentication: set(reader.words("authentication")),
            permissions: set(reader.words("permissions")),
        });
        insert(reader, &mut methods, "methods", method, rules);
    }
    methods
}

fn respond(reader: &mut FieldReader) -> Respond {
    let default = Respond::default();
    Respond {
        status: reader.number("status").unwrap_or(default.status),
        content_type: reader.text("content_type").unwrap_or(default.content_type),
        body: reader.text("body").unwrap_or(default.body),
    }
}

fn proxy(reader: &mut FieldReader) -> Proxy {
    let default = Proxy::default();
    Proxy {
        upstreams: reader.words("upstreams").unwrap_or_default(),
        protocol: protocol(reader),
        ca: reader.text("ca"),
        strip_prefix: reader.text("strip_prefix"),
        preserve_host: reader.flag("preserve_host").unwrap_or(default.preserve_host),
        keep_credential: reader.flag("keep_credential").unwrap_or(default.keep_credential),
        upgrades: reader.words("upgrades").map_or(default.upgrades, |words| set(Some(words))),
        forwarded: forwarded(reader).unwrap_or(default.forwarded),
        connect_seconds: reader.number("connect_seconds").unwrap_or(default.connect_seconds),
        response_seconds: reader.number("response_seconds").unwrap_or(default.response_seconds),
        idle_seconds: reader.number("idle_seconds").unwrap_or(default.idle_seconds),
        eject_after: reader.number("eject_after").unwrap_or(default.eject_after),
        eject_seconds: reader.number("eject_seconds").unwrap_or(default.eject_seconds),
    }
}

fn cors(reader: &mut FieldReader) -> Cors {
    let default = Cors::default();
    let preflight = reader.text("preflight");
    let preflight = preflight.map(|name| PreflightMode::parse("preflight", &name));
    Cors {
        origins: set(reader.words("origins")),
        methods: reader.words("methods").map(|words| set(Some(words))),
        headers: reader.words("headers").map(|words| set(Some(words))),
        expose: set(reader.words("expose")),
        credentials: reader.flag("credentials").unwrap_or(default.credentials),
        max_age: reader.number("max_age").unwrap_or(default.max_age),
        preflight: preflight.and_then(|mode| reader.rule(mode)).unwrap_or_default(),
        private_network: reader.flag("private_network").unwrap_or_default(),
    }
}

fn forwarded(reader: &mut FieldReader) -> Option<BTreeSet<ForwardedField>> {
    let mut fields = BTreeSet::new();
    for name in reader.words("forwarded")? {
        match ForwardedField::from_name(&name) {
            Some(field) => drop(fields.insert(field)),
            None => {
                let known = ForwardedField::ALL.map(ForwardedField::name).join(", ");
                let message = format!("{name:?} is not a header field about the client.");
                reader.reject("forwarded", message, format!("Use {known}, or an empty list."));
            }
        }
    }
    Some(fields)
}

fn protocol(reader: &mut FieldReader) -> Protocol {
    match reader.text("protocol").as_deref() {
        None | Some("http1") => Protocol::Http1,
        Some("http2") => Protocol::Http2,
        Some(other) => {
            reader.reject(
                "protocol",
                format!("{other:?} is not a protocol."),
                "Use http1 or http2.",
            );
            Protocol::default()
        }
    }
}
