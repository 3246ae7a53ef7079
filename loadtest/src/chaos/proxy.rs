//! A TCP proxy between processes and a server, whose connections can be delayed, swallowed and cut.

use crate::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes passed on at a time.
const CHUNK: usize = 64 * 1024;

/// What becomes of what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It passes.
    #[default]
    Pass,
    /// Each piece waits this long, in each direction.
    Delay(Duration),
    /// Nothing passes; connections stay open.
    Swallow,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The server's port; 0: it is away, and connections are refused.
    port: u16,
    mode: Mode,
    /// Connections made under another number are cut.
    generation: u64,
}

/// A proxy that listens for as long as it lives.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port.
    pub async fn start() -> Result<Proxy, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(Error::io("listen for", Path::new("a proxy")))?;
        let port = listener.local_addr().map_err(Error::io("listen for", Path::new("a proxy")))?.port();
        let state = Arc::new(watch::Sender::new(State::default()));
        let sender = Arc::clone(&state);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, sender.subscribe()));
            }
        });
        Ok(Proxy { port, state, listening })
    }

    /// The address with this proxy's port in the place of the server's.
    pub fn address(&self, server: &str) -> String {
        let (before, rest) = server.rsplit_once(':').unwrap_or((server, ""));
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{before}:{}{after}", self.port)
    }

    /// Where connections go from now on.
    pub fn target(&self, server: &str) {
        let port = server.rsplit_once(':').map_or("", |(_, rest)| rest);
        let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
        self.state.send_modify(|state| state.port = digits.parse().unwrap_or(0));
    }

    /// What becomes of what passes from now on, also on connections that stand.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn serve(client: TcpStream, mut state: watch::Receiver<State>) {
    let State { port, generation, .. } = *state.borrow_and_update();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = state.clone();
    tokio::select! {
        () = pass(from_client, to_server, state.clone()) => {}
        () = pass(from_server, to_client, state) => {}
        _ = cut.wait_for(|state| state.generation != generation) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(read) = from.read(&mut chunk).await else { return };
        if read == 0 {
            return;
        }
        let mode = state.borrow().mode;
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        // What is swallowed comes late, as when a network heals before either side has given up.
        let is_over = state.wait_for(|state| state.mode != Mode::Swallow).await.is_err();
        if is_over || to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_passes_is_held_and_cut_as_it_is_told() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("nats://{}", server.local_addr().unwrap());
        let proxy = Proxy::start().await.unwrap();
        proxy.target(&address);
        let through = proxy.address(&address);
        let mut client = TcpStream::connect(through.trim_start_matches("nats://")).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut byte = [0];
        client.write_all(b"a").await.unwrap();
        served.read_exact(&mut byte).await.unwrap();
        proxy.set(Mode::Swallow);
        client.write_all(b"b").await.unwrap();
        let held = tokio::time::timeout(Duration::from_millis(50), served.read_exact(&mut byte)).await;
        assert!(held.is_err(), "nothing passes");
        proxy.set(Mode::Pass);
        served.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"b", "it comes late");
        proxy.cut();
        assert_eq!(client.read(&mut byte).await.unwrap_or(0), 0, "the connection has ended");
        assert_eq!(
            proxy.address("postgres://a:b@127.0.0.1:5/x?y"),
            format!("postgres://a:b@127.0.0.1:{}/x?y", proxy.port)
        );
    }
}
