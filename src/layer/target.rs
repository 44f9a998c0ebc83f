//! The target of a request as the outermost router has read it, however deep in nested routers a
//! guard is.

use std::{borrow::Cow, sync::Arc};

use ::http::{StatusCode, Uri, request::Parts, uri::PathAndQuery};

use crate::pipeline::{Denial, Phase};

/// The part of the name of axum's body types, by which a guard notices axum.
const AXUM_BODY: &str = "axum_core::body::";

/// The source of a request's target.
#[derive(Clone, Default)]
pub(super) enum TargetSource {
    /// The request, and what axum says about nested routers.
    #[default]
    Request,
    /// A function of the program.
    Program(Arc<FindTarget>),
}

pub(super) type FindTarget = dyn Fn(&Parts) -> Option<Uri> + Send + Sync;

/// The target that decisions are about.
pub(super) struct Target<'p> {
    pub uri: Cow<'p, Uri>,
    /// Whether a router outside of the guard has chosen a route already.
    pub is_routed: bool,
}

impl TargetSource {
    /// Finds the target of a request.
    ///
    /// # Errors
    /// The target cannot be known: a router outside of the guard may have read another one.
    pub fn find<'p, B>(&self, parts: &'p Parts) -> Result<Target<'p>, Denial> {
        let own = Target { uri: Cow::Borrowed(&parts.uri), is_routed: false };
        match self {
            Self::Program(find) => {
                let uri = find(parts).ok_or_else(|| {
                    misplaced("the function of GuardLayer::target_from found no target".into())
                })?;
                Ok(Target { uri: Cow::Owned(uri), is_routed: true })
            }
            Self::Request if hides_target(std::any::type_name::<B>()) => Err(misplaced(
                "the guard is inside of axum, whose nested routers shorten the path: enable the \
                 feature `axum` of keyward, or name the target with GuardLayer::target_from"
                    .into(),
            )),
            #[cfg(feature = "axum")]
            Self::Request => match parts.extensions.get::<axum::extract::OriginalUri>() {
                Some(original) => of_axum(parts, &original.0),
                None => Ok(own),
            },
            #[cfg(not(feature = "axum"))]
            Self::Request => Ok(own),
        }
    }
}

/// Whether a request with this body may have been shortened by a router that the guard does not
/// understand.
fn hides_target(body: &str) -> bool {
    cfg!(not(feature = "axum")) && body.contains(AXUM_BODY)
}

/// The target that axum's outermost router has read. It must lead to the target that the guard sees
/// by the removal of the nested prefixes alone.
#[cfg(feature = "axum")]
fn of_axum<'p>(parts: &'p Parts, original: &'p Uri) -> Result<Target<'p>, Denial> {
    let nested = parts.extensions.get::<axum::extract::NestedPath>();
    let removed = nested.map_or(0, |nested| segments(nested.as_str()));
    let rest = without_segments(original.path(), removed);
    if rest != Some(parts.uri.path()) || original.query() != parts.uri.query() {
        return Err(misplaced(format!(
            "axum's router has read the target {}, and the guard sees the path {}: a middleware \
             between them has changed it. Move the guard outside of that middleware, or name the \
             target with GuardLayer::target_from",
            original.path(),
            parts.uri.path()
        )));
    }
    Ok(Target { uri: Cow::Borrowed(original), is_routed: true })
}

#[cfg(feature = "axum")]
fn segments(path: &str) -> usize {
    path.split('/').filter(|segment| !segment.is_empty()).count()
}

/// The path without its first segments. `None` means that it has fewer segments.
#[cfg(feature = "axum")]
fn without_segments(path: &str, count: usize) -> Option<&str> {
    let mut rest = path;
    for _ in 0..count {
        rest = rest.strip_prefix('/')?;
        rest = rest.find('/').map_or("", |end| &rest[end..]);
    }
    Some(if rest.is_empty() { "/" } else { rest })
}

/// The denial of a request that the guard cannot decide about because of its place in the program.
pub(super) fn misplaced(internal_message: String) -> Denial {
    let message = "The request could not be decided.";
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Denial::new(Phase::Edge, status, "GUARD_MISPLACED", message)
        .with_internal_message(internal_message)
}

/// A target with another query. `None` cannot happen: the new query consists of parts of an old
/// query.
pub(super) fn with_query(uri: &Uri, query: Option<&str>) -> Option<Uri> {
    let target = match query {
        Some(query) => format!("{}?{query}", uri.path()),
        None => uri.path().to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(all(test, feature = "axum"))]
mod tests {
    use super::*;

    #[test]
    fn nested_prefix_is_counted_in_segments() {
        for (path, count, rest) in [
            ("/a/b", 0, Some("/a/b")),
            ("/a/b", 1, Some("/b")),
            ("/a/b/", 2, Some("/")),
            ("/a", 1, Some("/")),
            ("/a/", 1, Some("/")),
            ("/", 1, Some("/")),
            ("/a", 2, None),
        ] {
            assert_eq!(without_segments(path, count), rest, "{path} {count}");
        }
        assert_eq!(segments("/api/{version}/"), 2);
    }
}
