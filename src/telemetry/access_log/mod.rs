//! The access log: a line for each request. A line contains no credential, no query and no body.

mod line;
mod writer;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use line::Line;
use writer::Writer;

use crate::pipeline::record::{
    ConnectionEvent, FinishedRequest, ListenerKind, Observation, RequestObserver, Target,
};

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
}

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// A JSON object.
    Json,
    /// `name=value`, with spaces between.
    Logfmt,
    /// The combined log format of Apache. Most fields have no place in it.
    Combined,
}

/// Which requests are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequests {
    /// Whether allowed requests are left out.
    pub only_denied: bool,
    /// Of the allowed requests, one in this many is logged. At least 1.
    pub sample: u32,
    /// The ids of the resources. Empty means all requests.
    pub resources: BTreeSet<String>,
}

/// Writes the access log.
pub struct AccessLog {
    format: LineFormat,
    requests: LoggedRequests,
    /// The number of allowed requests so far, for the sample.
    allowed: AtomicU32,
    writer: Writer,
}

impl AccessLog {
    /// Opens the output.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(output: &Output, format: LineFormat, requests: LoggedRequests) -> io::Result<Self> {
        let writer = Writer::start(output)?;
        Ok(Self { format, requests, allowed: AtomicU32::new(0), writer })
    }

    /// Opens the file again before the next line, because another program has moved it.
    pub fn reopen(&self) {
        self.writer.reopen();
    }

    /// The number of lines that were lost, because the output was too slow or failed.
    pub fn lost(&self) -> u64 {
        self.writer.lost()
    }

    /// Waits until all lines so far are written.
    pub fn flush(&self) {
        self.writer.flush();
    }

    fn is_logged(&self, request: &FinishedRequest<'_>) -> bool {
        let LoggedRequests { only_denied, sample, resources } = &self.requests;
        let is_named = || match &request.facts.target {
            Some(Target::Resource(id)) => resources.contains(id),
            _ => false,
        };
        if !resources.is_empty() && !is_named() {
            return false;
        }
        request.denial.is_some()
            || !only_denied && self.allowed.fetch_add(1, Relaxed).is_multiple_of(*sample)
    }
}

impl RequestObserver for AccessLog {
    fn observation(&self) -> Observation {
        Observation::Full
    }

    fn finished(&self, request: &FinishedRequest<'_>) {
        if self.is_logged(request) {
            let line = Line { request, time: jiff::Timestamp::now() };
            self.writer.write(line.format(self.format));
        }
    }

    fn connection(&self, _: ListenerKind, _: ConnectionEvent) {}
}
