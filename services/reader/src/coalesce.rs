//! A connection that sends what was written in one go, once everybody who has something to say has said it.
//!
//! HTTP/2 flushes after each data frame, so a thousand watchers that are told one change would cost a thousand system calls, which take
//! longer than everything else about it. Here a flush is put off until the connection's task is run again, which it asks for
//! at once: behind the tasks that are ready now, among them the other streams of the connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept before they are sent at once.
const LIMIT: usize = 64 * 1024;

/// A connection with what is still to be sent.
#[derive(Debug)]
pub(crate) struct Coalescing<C> {
    inner: C,
    kept: Vec<u8>,
    /// What of `kept` is sent already.
    sent: usize,
    /// A flush was asked for and put off.
    put_off: bool,
}

impl<C> Coalescing<C> {
    /// A connection with nothing to send.
    pub fn new(inner: C) -> Coalescing<C> {
        Coalescing { inner, kept: Vec::new(), sent: 0, put_off: false }
    }
}

impl<C: AsyncWrite + Unpin> Coalescing<C> {
    /// Sends everything that is kept.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.kept.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(context, &self.kept[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.kept.clear();
        self.kept.shrink_to(LIMIT);
        self.sent = 0;
        self.put_off = false;
        Pin::new(&mut self.inner).poll_flush(context)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Coalescing<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.kept.len() >= LIMIT {
            ready!(self.send(context))?;
        }
        slices.iter().for_each(|slice| self.kept.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.kept.len() >= LIMIT {
            return self.send(context);
        }
        if !std::mem::replace(&mut self.put_off, true) {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalescing<C> {
    /// A connection's task reads each time that it is run: that is when the flush that was put off is made.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.put_off {
            // What the connection does not take now it is asked for again when it can: nothing is read less for it.
            if let Poll::Ready(Err(error)) = self.send(context) {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Runs a connection as HTTP/2 does: each time the task is run it reads first.
    async fn run(connection: &mut Coalescing<DuplexStream>) {
        let mut byte = [0];
        let _ = tokio::time::timeout(Duration::from_millis(1), connection.read(&mut byte)).await;
    }

    #[tokio::test]
    async fn what_was_flushed_is_sent_when_the_task_is_run_again() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut connection = Coalescing::new(near);
        let mut found = [0; 10];
        for part in [&b"hello"[..], b"world"] {
            connection.write_all(part).await.unwrap();
            connection.flush().await.unwrap();
        }
        assert!(far.read(&mut found).now_or_never().is_none(), "it is put off");
        run(&mut connection).await;
        far.read_exact(&mut found).await.unwrap();
        assert_eq!(&found, b"helloworld");
        connection.write_all(b"end").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end");
    }

    #[tokio::test]
    async fn a_connection_that_takes_nothing_is_not_written_to_without_end() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut connection = Coalescing::new(near);
        let chunk = vec![7; LIMIT];
        connection.write_all(&chunk).now_or_never().expect("it is kept").unwrap();
        assert!(connection.write_all(&chunk).now_or_never().is_none(), "there is enough already");
        let writing = async {
            connection.write_all(&chunk).await.unwrap();
            connection.shutdown().await.unwrap();
        };
        let mut found = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut found), writing);
        assert_eq!((read.unwrap(), found.iter().all(|byte| *byte == 7)), (2 * LIMIT, true));
    }
}
