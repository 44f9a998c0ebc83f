//! `GET /api/v1/state`: sends all records as a TOML document, as a stream.
//!
//! A thread writes the records into a file without a name, and the response reads this file. So
//! neither needs much memory, and a slow client keeps nobody waiting: writers wait for the end of
//! the file, never for the client.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use ::http::{
    HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::watch;

use super::{TOML, admin_only};
use crate::{
    accounts::{AccountError, Writer},
    api::{ApiRequest, response},
    handlers::{BodyError, Payload, PayloadResponse},
    pipeline::Denial,
    store::{Cancel, CancelOnDrop},
};

/// The number of users and keys in the store, for the progress bar of a client.
pub const RECORDS_FIELD: HeaderName = HeaderName::from_static("keyward-records");

/// The number of bytes that the response reads or the thread writes at once.
const PART: usize = 64 * 1024;

pub(in crate::api) async fn export(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    request.accounts.admin_reader().ok_or_else(admin_only)?;
    let file = request.accounts.temporary_file().map_err(response::denial)?;
    let cancel = Cancel::default();
    let cancel_on_drop = cancel.on_drop();
    let writer = request.accounts.clone().with_cancel(cancel);
    let file = Arc::new(file);
    let (sender, mut progress) = watch::channel(Progress::default());
    let spool = Spool { file: file.clone(), progress: sender };
    tokio::task::spawn_blocking(move || spool.fill(&writer));
    // An error before the first byte is a response of its own.
    let first = progress.wait_for(|progress| progress.bytes > 0 || progress.end.is_some()).await;
    if let Ok(Some(Err(problem))) = first.map(|progress| progress.end.clone()) {
        return Err(response::denial(problem));
    }
    let download = Download { file, offset: 0, progress, _cancel: cancel_on_drop };
    let parts = stream::unfold(download, Download::next);
    let mut response = Response::new(Payload::stream(StreamBody::new(parts)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TOML));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (users, keys) = request.accounts.directory().counts();
    headers.insert(RECORDS_FIELD, HeaderValue::from(users + keys));
    Ok(response)
}

/// How far the file is written.
#[derive(Debug, Clone, Default)]
struct Progress {
    bytes: u64,
    /// `None` means that more bytes follow.
    end: Option<Result<(), AccountError>>,
}

/// The file as the thread writes it.
struct Spool {
    file: Arc<File>,
    progress: watch::Sender<Progress>,
}

impl Spool {
    fn fill(self, writer: &Writer) {
        let progress = self.progress.clone();
        let written = self.write(writer);
        if let Err(problem) = &written {
            tracing::warn!("an export ended early: {problem}");
        }
        progress.send_modify(|progress| progress.end = Some(written));
    }

    fn write(self, writer: &Writer) -> Result<(), AccountError> {
        let Some(reader) = writer.admin_reader() else { return Err(AccountError::AdminOnly) };
        reader.write_export(&mut BufWriter::with_capacity(PART, self)).map(drop)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = (&*self.file).write(bytes)?;
        self.progress.send_modify(|progress| progress.bytes += count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file as the response reads it.
struct Download {
    file: Arc<File>,
    offset: u64,
    progress: watch::Receiver<Progress>,
    /// Ends the thread if the client leaves.
    _cancel: CancelOnDrop,
}

impl Download {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, BodyError>, Self)> {
        match self.read().await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), self)),
            Err(problem) => Some((Err(BodyError::new(problem)), self)),
        }
    }

    /// The next part of the file. `None` means that the file is complete.
    async fn read(&mut self) -> Result<Option<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let offset = self.offset;
        let progress = self.progress.wait_for(|now| now.bytes > offset || now.end.is_some()).await;
        // The thread has ended without a result if it panicked.
        let progress = progress?.clone();
        if progress.bytes <= offset {
            return match progress.end {
                Some(Err(problem)) => Err(problem.into()),
                _ => Ok(None),
            };
        }
        let file = self.file.clone();
        let count = usize::try_from(progress.bytes - offset).unwrap_or(PART).min(PART);
        let reading = move || -> io::Result<Vec<u8>> {
            let mut part = vec![0; count];
            file.read_exact_at(&mut part, offset)?;
            Ok(part)
        };
        let part = tokio::task::spawn_blocking(reading).await??;
        self.offset += part.len() as u64;
        Ok(Some(part.into()))
    }
}
