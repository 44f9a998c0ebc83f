//! Keeps caches from mixing clients: a response names the request fields that decided about it, and
//! shared caches may not store the response to an authenticated request.
//!
//! Caches know that `Authorization` carries a credential (RFC 9111, section 3.5). They do not know
//! this of `API-KEY`, so Keyward says it in each response.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, VARY},
};

use crate::{
    directory::Rule,
    pipeline::{Action, Identity, RequestContext},
};

const ANY: HeaderValue = HeaderValue::from_static("*");
/// Fields that tell one kind of cache to store a response whatever `Cache-Control` says (RFC 9213).
const FOR_ONE_KIND_OF_CACHE: [&str; 3] =
    ["cdn-cache-control", "surrogate-control", "x-accel-expires"];
const PRIVATE: HeaderValue = HeaderValue::from_static("private");

/// The cache fields of a response.
pub(crate) struct CacheRules {
    /// The fields of the request that can carry a credential, as the value of `Vary`. `None` means
    /// that every allowed request is anonymous.
    credential_fields: Option<HeaderValue>,
    sharing: Sharing,
}

/// The caches that may store a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// All caches, because the request is anonymous.
    Anonymous,
    /// Shared caches only if the response says so itself.
    IfExplicit,
    /// No shared cache, because the key is bound to networks, and no request field tells a cache
    /// from which network a request comes.
    Never,
}

impl CacheRules {
    pub fn new(context: &RequestContext, action: &Action<'_>, identity: &Identity<'_>) -> Self {
        let sharing = if identity.is_anonymous() {
            Sharing::Anonymous
        } else if identity.is_bound_to_networks() {
            Sharing::Never
        } else {
            Sharing::IfExplicit
        };
        Self { credential_fields: credential_fields(context, action), sharing }
    }

    /// The rules of a response that depends on no credential.
    pub const ANONYMOUS: Self = Self { credential_fields: None, sharing: Sharing::Anonymous };

    /// Whether the response is for one client.
    #[cfg(feature = "server")]
    pub fn is_private(&self) -> bool {
        self.sharing != Sharing::Anonymous
    }

    /// The value of `Vary` for a response without a `Vary` of its own.
    #[cfg(feature = "server")]
    pub fn vary(&self, context: &RequestContext, other: &[&str]) -> Option<HeaderValue> {
        // The usual case needs no map.
        if other.is_empty() && context.fields_read_by_scripts().is_empty() {
            return self.credential_fields.clone();
        }
        let mut headers = HeaderMap::new();
        self.add_vary(context, other, &mut headers);
        headers.remove(VARY)
    }

    /// Writes the fields into a response, after its handler and its hooks. `other` are further
    /// request fields on which the response depends.
    pub fn write(
        &self,
        context: &RequestContext,
        other: &[&str],
        status: StatusCode,
        headers: &mut HeaderMap,
    ) {
        // A 101 is not a response that a cache could store.
        if status.is_informational() {
            return;
        }
        self.add_vary(context, other, headers);
        match self.sharing {
            Sharing::Anonymous => {}
            Sharing::IfExplicit => make_private(headers, is_shareable),
            Sharing::Never => {
                make_private(headers, |_| false);
                for name in FOR_ONE_KIND_OF_CACHE {
                    headers.remove(name);
                }
            }
        }
    }

    fn add_vary(&self, context: &RequestContext, other: &[&str], headers: &mut HeaderMap) {
        let read_by_scripts = context.fields_read_by_scripts();
        let has_more = !read_by_scripts.is_empty() || !other.is_empty();
        match &self.credential_fields {
            Some(fields) if !has_more && !headers.contains_key(VARY) => {
                headers.insert(VARY, fields.clone());
            }
            fields => {
                let fields = fields.iter().filter_map(|fields| fields.to_str().ok());
                let fields = fields.flat_map(|fields| fields.split(", "));
                let more = read_by_scripts.iter().map(HeaderName::as_str);
                vary_by(headers, fields.chain(more).chain(other.iter().copied()));
            }
        }
    }
}

/// Adds the `Vary` of a denial that a script has made cacheable: another client must not get this
/// denial from a cache.
pub(crate) fn complete_denial(context: &RequestContext, headers: &mut HeaderMap) {
    if headers.contains_key(CACHE_CONTROL) && !directives(headers).any(|one| one.is("no-store")) {
        let fields = context.policy.applications.credential_fields().to_str().unwrap_or("*");
        let read_by_scripts = context.fields_read_by_scripts();
        let more = read_by_scripts.iter().map(HeaderName::as_str);
        vary_by(headers, fields.split(", ").chain(more));
    }
}

/// Adds field names to `Vary` that it does not contain yet. The result is one line, because some
/// caches read only one.
pub(crate) fn vary_by<'a>(headers: &mut HeaderMap, names: impl IntoIterator<Item = &'a str>) {
    let mut all: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        let is_new = !name.is_empty() && !all.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_new {
            all.push(name.to_owned());
        }
    };
    for value in headers.get_all(VARY) {
        match value.to_str() {
            Ok(text) => text.split(',').for_each(|name| add(name.trim())),
            // A value that cannot be read may name any field.
            Err(_) => add("*"),
        }
    }
    names.into_iter().for_each(&mut add);
    if all.is_empty() {
        return;
    }
    let is_any = all.iter().any(|name| name == "*");
    let text = if is_any { None } else { HeaderValue::try_from(all.join(", ")).ok() };
    headers.insert(VARY, text.unwrap_or(ANY));
}

/// The request fields that can carry the credential of an allowed request.
fn credential_fields(context: &RequestContext, action: &Action<'_>) -> Option<HeaderValue> {
    let applications = &context.policy.applications;
    let Some(Rule { access, .. }) = action.rule() else { return Some(all_fields(context)) };
    if access.all_applications {
        return Some(all_fields(context));
    }
    if access.applications.is_empty() {
        return None;
    }
    // The default application reads the credential of a request without `AUTH-METHOD`, so an
    // anonymous request depends on its field too.
    let default = applications.default().filter(|_| access.anonymous);
    let named = access.applications.iter().filter_map(|id| applications.get(id));
    let mut headers = HeaderMap::new();
    let names = named.chain(default).map(|application| application.record.header.as_str());
    vary_by(&mut headers, ["AUTH-METHOD"].into_iter().chain(names));
    headers.remove(VARY)
}

/// A copy with a reference count of its own, because all cores would write to a shared count.
fn all_fields(context: &RequestContext) -> HeaderValue {
    let shared = context.policy.applications.credential_fields();
    HeaderValue::from_bytes(shared.as_bytes()).unwrap_or(ANY)
}

/// Adds `private`, unless the response says that no shared cache may store it, or that shared
/// caches may (`may_stay`). Directives that contradict `private` are removed.
fn make_private(headers: &mut HeaderMap, may_stay: impl Fn(&Directive<'_>) -> bool) {
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, PRIVATE);
        return;
    }
    let is_settled = directives(headers).any(|one| {
        one.is("no-store") || one.is("private") && one.argument.is_none() || may_stay(&one)
    });
    if is_settled {
        return;
    }
    let kept: Vec<&str> = directives(headers)
        .filter(|one| !is_shareable(one) && !one.is("private"))
        .map(|one| one.text)
        .chain(["private"])
        .collect();
    let value = HeaderValue::try_from(kept.join(", ")).unwrap_or(PRIVATE);
    headers.insert(CACHE_CONTROL, value);
}

/// Whether a directive allows shared caches to store a response to an authenticated request (RFC
/// 9111, section 3.5). `must-revalidate` is not among them: most servers that send it do not mean
/// this.
fn is_shareable(directive: &Directive<'_>) -> bool {
    directive.is("public") || directive.is("s-maxage")
}

/// One directive of `Cache-Control`.
struct Directive<'a> {
    text: &'a str,
    name: &'a str,
    argument: Option<&'a str>,
}

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The directives of all `Cache-Control` fields. Values that are not text are left out.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = Directive<'_>> {
    let values = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(split_list).filter(|text| !text.is_empty()).map(|text| {
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name.trim_end(), Some(argument)),
            None => (text, None),
        };
        Directive { text, name, argument }
    })
}

/// Splits a list at its commas, except for commas in quoted strings.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c: char| {
        let is_end = c == ',' && !is_quoted;
        if c == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = c == '\\' && is_quoted && !is_escaped;
        is_end
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(before: &[&str], more: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in before {
            headers.append(VARY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        vary_by(&mut headers, more.iter().copied());
        assert!(headers.get_all(VARY).iter().count() < 2);
        Some(headers.get(VARY)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn vary_names_each_field_once_and_keeps_a_star() {
        assert_eq!(merged(&[], &[]), None);
        assert_eq!(merged(&[], &["A", "B"]).unwrap(), "A, B");
        assert_eq!(
            merged(&["accept, API-key"], &["API-KEY", "Origin"]).unwrap(),
            "accept, API-key, Origin"
        );
        assert_eq!(merged(&["a", "b,,a"], &["b"]).unwrap(), "a, b");
        assert_eq!(merged(&["*"], &["A"]).unwrap(), "*");
        assert_eq!(merged(&["a, *"], &["A"]).unwrap(), "*");
        assert_eq!(merged(&["caf\u{e9}"], &["A"]).unwrap(), "*");
    }

    fn privately(before: &[&str], may_share: bool) -> String {
        let mut headers = HeaderMap::new();
        for value in before {
            headers.append(CACHE_CONTROL, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        make_private(&mut headers, |one| may_share && is_shareable(one));
        let values = headers.get_all(CACHE_CONTROL).iter();
        values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(" + ")
    }

    #[test]
    fn response_to_an_authenticated_request_is_private_unless_it_says_otherwise() {
        for (before, after) in [
            (&[][..], "private"),
            (&["max-age=60"], "max-age=60, private"),
            (
                &["no-cache", "max-age=60, must-revalidate"],
                "no-cache, max-age=60, must-revalidate, private",
            ),
            (&["private"], "private"),
            (&["No-Store"], "No-Store"),
            (&["max-age=9, PRIVATE"], "max-age=9, PRIVATE"),
            (&["public, max-age=60"], "public, max-age=60"),
            (&["max-age=60", "S-MaxAge=5"], "max-age=60 + S-MaxAge=5"),
            // These directives only contain the words.
            (&["private=\"set-cookie, public\", max-age=1"], "max-age=1, private"),
            (&["ext=\"a, public\""], "ext=\"a, public\", private"),
            (&["ext=\"a\\\", public\""], "ext=\"a\\\", public\", private"),
            (&["\u{e9}"], "private"),
        ] {
            assert_eq!(privately(before, true), after, "{before:?}");
        }
    }

    #[test]
    fn response_to_a_key_that_is_bound_to_networks_is_always_private() {
        assert_eq!(privately(&["public, max-age=60"], false), "max-age=60, private");
        assert_eq!(privately(&["s-maxage=60", "public"], false), "private");
        assert_eq!(privately(&["no-store, public"], false), "no-store, public");
    }
}
