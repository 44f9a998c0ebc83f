//! Writes lines in a thread of its own, so that no request waits for a disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use super::Output;

/// The maximum number of lines that wait. Further lines are lost, and counted.
const MAX_WAITING: usize = 8192;

/// Sends lines to the thread that writes them.
pub(super) struct Writer {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line(String),
    Reopen,
    /// Answered when all lines before are written.
    Flush(SyncSender<()>),
}

impl Writer {
    pub fn start(output: &Output) -> io::Result<Self> {
        let sink = Sink::open(output)?;
        let (messages, received) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(sink, &received, &counted))?;
        Ok(Self { messages, lost })
    }

    pub fn write(&self, line: String) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.messages.try_send(Message::Line(line))
        {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    pub fn reopen(&self) {
        // If the queue is full, this waits until the thread has written a line.
        let _ = self.messages.send(Message::Reopen);
    }

    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.messages.send(Message::Flush(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

fn write_all(mut sink: Sink, messages: &Receiver<Message>, lost: &AtomicU64) {
    let mut has_failed = false;
    let mut buffer = String::new();
    while let Ok(first) = messages.recv() {
        let (mut lines, mut next) = (0, Some(first));
        let mut control = None;
        // Lines that wait are written at once.
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    buffer.push_str(&line);
                    buffer.push('\n');
                    lines += 1;
                }
                other => {
                    control = Some(other);
                    break;
                }
            }
            next = if lines < 1024 { messages.try_recv().ok() } else { None };
        }
        if lines > 0 {
            let written = sink.write(buffer.as_bytes());
            if let Err(problem) = &written {
                lost.fetch_add(lines, Relaxed);
                // Said once, and again after it has worked in between.
                if !has_failed {
                    tracing::error!("cannot write the access log: {problem}. Lines are lost");
                }
            }
            has_failed = written.is_err();
            buffer.clear();
        }
        match control {
            Some(Message::Reopen) => {
                if let Err(problem) = sink.reopen() {
                    tracing::error!(
                        "cannot open the access log again: {problem}. The old file stays in use"
                    );
                }
            }
            Some(Message::Flush(done)) => {
                let _ = done.send(());
            }
            Some(Message::Line(_)) | None => {}
        }
    }
}

enum Sink {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
}

impl Sink {
    fn open(output: &Output) -> io::Result<Self> {
        Ok(match output {
            Output::Stdout => Self::Stdout,
            Output::Stderr => Self::Stderr,
            Output::File(path) => Self::File { path: path.clone(), file: open(path)? },
        })
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file } = self {
            *file = open(path)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { file, .. } => file.write_all(bytes),
        }
    }
}

/// Opens a file for appending. A new file can be read by its user and group, because lines contain
/// names of users and addresses of clients.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_moved_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "old\n").unwrap();
        let writer = Writer::start(&Output::File(path.clone())).unwrap();
        writer.write("first".into());
        writer.flush();
        let moved = folder.path().join("access.log.1");
        std::fs::rename(&path, &moved).unwrap();
        writer.write("second".into());
        writer.reopen();
        writer.write("third".into());
        writer.flush();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "old\nfirst\nsecond\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let writer = Writer::start(&Output::File("/dev/full".into())).unwrap();
        writer.write("a".into());
        writer.write("b".into());
        writer.flush();
        assert_eq!(writer.lost(), 2);
        assert!(Writer::start(&Output::File("/nowhere/access.log".into())).is_err());
    }
}
