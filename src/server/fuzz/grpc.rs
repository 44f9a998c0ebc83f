//! Envoy's gRPC messages: the fields of a client inside the message never change the question.

use prost::Message as _;

use crate::server::verify::envoy::{messages::CheckRequest, question};

/// Checks the bytes of a message.
///
/// # Panics
/// The reader panics, or reads a path or a host that no request has.
pub fn envoy_message(data: &[u8]) {
    let Ok(message) = CheckRequest::decode(data) else { return };
    let Some(line) = question(message.clone()) else { return };
    assert_eq!(Some(&line), question(message.clone()).as_ref());
    let sent = message.attributes.and_then(|attributes| attributes.request?.http);
    let sent = sent.expect("a question has a request");
    let [method, host, path] = &line;
    assert!(method.eq_ignore_ascii_case(&sent.method), "{line:?}");
    assert!(path.starts_with('/') && sent.path.contains(path.as_str()), "{line:?}");
    assert!(!host.is_empty() && !host.contains(['/', '@', ' ']), "{line:?}");
}
