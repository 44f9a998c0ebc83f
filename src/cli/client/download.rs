//! Receives the body of a response in parts.

use std::io;

use http::response::Parts;

use crate::cli::{CliError, Exit};

/// A receiver of the body of a successful response.
pub trait Download: Send {
    /// Receives the head of the response, before the body.
    fn begin(&mut self, head: &Parts);

    /// Receives a part of the body.
    ///
    /// # Errors
    /// The part cannot be written, which ends the download.
    fn part(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A part of a body that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OutputError(#[from] pub io::Error);

impl From<OutputError> for CliError {
    fn from(OutputError(problem): OutputError) -> Self {
        let exit = match problem.kind() {
            io::ErrorKind::BrokenPipe => Exit::Failed,
            _ => Exit::Usage,
        };
        Self::new(exit, format!("cannot write the output: {problem}"))
    }
}
