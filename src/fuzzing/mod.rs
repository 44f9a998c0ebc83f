//! The parsers that read what strangers write, each with a check that must hold for any input. The
//! fuzzer in `fuzz/` and the tests call these checks. Not for programs.

mod keys;
#[cfg(test)]
mod tests;

/// A check. It panics if a parser breaks its promise.
pub type Check = fn(&[u8]);

/// All checks, by name. `fuzz/seeds/` has a folder of inputs for each.
pub const TARGETS: [(&str, Check); 12] = [
    ("framing", crate::server::fuzz::framing),
    ("dialects", crate::server::fuzz::dialects),
    ("envoy_message", crate::server::fuzz::envoy_message),
    ("proxy_header", crate::server::fuzz::proxy_header),
    ("host", crate::http::fuzz::host),
    ("path", crate::http::fuzz::path),
    ("forwarded", crate::http::fuzz::forwarded),
    ("key_text", keys::key_text),
    ("backup", crate::store::fuzz::backup),
    ("user_entity", crate::handlers::entity_user::fuzz::user_entity),
    ("state_document", crate::api::apply::fuzz::state_document),
    ("imported_file", crate::cli::fuzz::imported_file),
];
