//! The head of an upstream's answer, made fit for the client: what was meant for this hop alone stays here.

use ::http::{
    HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
    response::Parts,
};

use super::outgoing::Hops;

/// Whether an answer changes to the protocol that was asked for, and to no other.
pub(super) fn switches_to<B>(response: &Response<B>, asked: Option<&HeaderValue>) -> bool {
    let given = response.headers().get(UPGRADE);
    matches!((given, asked), (Some(given), Some(asked))
        if given.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
}

/// Takes out what is for one hop (RFC 9110, section 7.6.1). An upgrade is for the client too.
pub(super) fn clean(head: &mut Parts, is_upgraded: bool) {
    let upgrade = head.headers.get(UPGRADE).filter(|_| is_upgraded).cloned();
    let hops = Hops::of(&head.headers);
    let gone: Vec<_> = head.headers.keys().filter(|name| hops.has(name)).cloned().collect();
    for name in gone {
        head.headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, upgrade);
    }
    if head.status == StatusCode::NOT_MODIFIED {
        // It is the length of a body that does not come.
        head.headers.remove(CONTENT_LENGTH);
    }
    // The version is that of the client's connection.
    head.version = Version::HTTP_11;
}
