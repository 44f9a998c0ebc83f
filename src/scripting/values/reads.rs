//! Records which parts of a request an authentication script reads while it looks for the
//! credential. What the script has read is removed before the request reaches an upstream.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::{HeaderName, header::COOKIE};
use parking_lot::Mutex;

use super::credential::{CredentialDeclaration, MESSAGE_FIELDS};
use crate::model::CredentialParts;

/// The maximum number of header fields that are recorded although the request lacks them. They
/// matter only for the challenge.
const MAX_ABSENT: usize = 16;

/// The parts of a request that were read while the log recorded.
#[derive(Default)]
pub(super) struct ReadLog {
    is_recording: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    declaration: Option<Arc<CredentialDeclaration>>,
    parts: CredentialParts,
}

/// Records until it is dropped.
pub(in crate::scripting) struct Recording<'a>(&'a AtomicBool);

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

impl ReadLog {
    /// Begins to record the reads of a script with this declaration.
    pub fn record(&self, declaration: Option<&Arc<CredentialDeclaration>>) -> Recording<'_> {
        self.state.lock().declaration = declaration.cloned();
        self.is_recording.store(true, Relaxed);
        Recording(&self.is_recording)
    }

    /// The parts that were read.
    pub fn parts(&self) -> CredentialParts {
        self.state.lock().parts.clone()
    }

    fn note(&self, add: impl FnOnce(Option<&CredentialDeclaration>, &mut CredentialParts)) {
        if self.is_recording.load(Relaxed) {
            let State { declaration, parts } = &mut *self.state.lock();
            add(declaration.as_deref(), parts);
        }
    }

    /// Notes that a header field was read.
    pub fn note_header(&self, name: &str, is_present: bool) {
        self.note(|declaration, parts| {
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
            let is_kept = declaration.is_some_and(|declaration| {
                declaration.kept.contains(&name) || declaration.has_cookies && name == COOKIE
            });
            let is_relevant = is_present || parts.headers.len() < MAX_ABSENT;
            if !is_kept && is_relevant && !MESSAGE_FIELDS.contains(&name.as_str()) {
                parts.add_header(&name);
            }
        });
    }

    /// Notes that a query parameter was read.
    pub fn note_parameter(&self, name: &str) {
        self.note(|_, parts| parts.add_parameter(name));
    }

    /// Notes that a cookie was read.
    pub fn note_cookie(&self, name: &str) {
        self.note(|_, parts| parts.add_cookie(name));
    }

    /// Notes that the whole query was read.
    pub fn note_query(&self) {
        self.note(|declaration, parts| {
            parts.whole_query |= !declaration.is_some_and(|declaration| declaration.has_parameters);
        });
    }

    /// Notes that the body was read.
    pub fn note_body(&self) {
        self.note(|_, parts| parts.body = true);
    }
}
