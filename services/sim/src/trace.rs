//! What happened, as a hash over all of it, and as lines for whoever wants to read them.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Lines of a trace that are kept at most.
const LINES: usize = 200_000;

/// One run's trace.
#[derive(Debug)]
pub(crate) struct Trace {
    inner: Mutex<Inner>,
    began: Instant,
}

#[derive(Debug)]
struct Inner {
    hash: u64,
    notes: u64,
    /// None: only the hash is wanted.
    lines: Option<Vec<String>>,
    text: String,
}

impl Trace {
    pub fn new(with_lines: bool) -> Trace {
        let lines = with_lines.then(Vec::new);
        let inner = Inner { hash: 0xcbf2_9ce4_8422_2325, notes: 0, lines, text: String::new() };
        Trace { inner: Mutex::new(inner), began: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something happened now.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let mut text = std::mem::take(&mut inner.text);
        text.clear();
        let _ = write!(text, "{:>9.3} {what}", self.began.elapsed().as_secs_f64());
        for byte in text.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.notes += 1;
        if let Some(lines) = inner.lines.as_mut().filter(|lines| lines.len() < LINES) {
            lines.push(text.clone());
        }
        inner.text = text;
    }

    /// The hash, how many notes it is of, and the lines.
    pub fn end(&self) -> (u64, u64, Vec<String>) {
        let mut inner = self.lock();
        (inner.hash, inner.notes, inner.lines.take().unwrap_or_default())
    }
}
