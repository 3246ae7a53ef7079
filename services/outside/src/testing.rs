//! A small HTTP server for tests: what it was asked, and what it answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// One request: its path and its headers, by lower-case name.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A server of its own address, until the test ends.
pub(crate) struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers each request with the bytes that `answer` gives for it, then closes the connection.
    pub async fn start(at: &str, answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(at).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = request(&mut stream).await else {
                        log.lock().expect("nobody panics").push(Asked { path: String::new(), headers: Vec::new() });
                        return;
                    };
                    log.lock().expect("nobody panics").push(request.clone());
                    let _ = stream.write_all(&answer(&request)).await;
                });
            }
        });
        Server { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked since the last call; a connection without a request has no path.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("nobody panics"))
    }
}

async fn request(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<Asked> {
    let mut asked = Asked { path: String::new(), headers: Vec::new() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match (line.trim_end(), line.split_once(": ")) {
            ("", _) => return Some(asked),
            (first, _) if first.starts_with("GET ") => asked.path = first.split(' ').nth(1)?.to_owned(),
            (_, Some((name, value))) => asked.headers.push((name.to_lowercase(), value.trim_end().to_owned())),
            _ => {}
        }
    }
}

/// An answer with a body.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}
