//! The bytes that follow a request with `Upgrade`. They belong to the new protocol if the server
//! switches to it, and to the next request otherwise. So they are held until the response decides.

use std::task::{Context, Waker};

use tokio::io::ReadBuf;

/// The held bytes of a connection.
#[derive(Debug, Default)]
pub(super) struct HeldBytes {
    is_holding: bool,
    bytes: Vec<u8>,
    /// The task that waits for the bytes.
    reader: Option<Waker>,
}

impl HeldBytes {
    /// Holds the bytes of `buffer` from `start`, and all bytes that follow.
    pub fn hold(&mut self, buffer: &mut ReadBuf<'_>, start: usize) {
        self.is_holding = true;
        self.bytes.extend_from_slice(&buffer.filled()[start..]);
        buffer.set_filled(start);
    }

    /// Whether bytes that are read now have to be held.
    pub fn is_holding(&self) -> bool {
        self.is_holding
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Wakes the task of `cx` when the response has decided.
    pub fn wait(&mut self, cx: &Context<'_>) {
        self.reader = Some(cx.waker().clone());
    }

    /// Ends the holding, because the response has decided.
    pub fn release(&mut self) {
        self.is_holding = false;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Moves as many bytes into `buffer` as fit.
    pub fn take_into(&mut self, buffer: &mut ReadBuf<'_>) {
        let fits = self.bytes.len().min(buffer.remaining());
        buffer.put_slice(&self.bytes[..fits]);
        self.bytes.drain(..fits);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}
