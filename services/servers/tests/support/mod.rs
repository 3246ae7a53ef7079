//! What the tests need of both wire protocols, and of helper processes: the test program itself, run again.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Waits for a condition, at most a minute.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Starts a test of this program that is marked `ignore`, as a process of its own.
pub fn helper(test: &str, variables: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What a helper printed after `RESULT `. Its output stays open: a helper whose output is closed fails.
pub fn result(child: &mut Child) -> String {
    let output = BufReader::new(child.stdout.as_mut().unwrap());
    let mut lines = output.lines().map(Result::unwrap);
    let line = lines.find_map(|line| line.split_once("RESULT ").map(|(_, rest)| rest.to_owned()));
    line.expect("the helper printed a result")
}

/// Sends requests to a nats-server and gives the first reply's payload.
pub fn nats_request(url: &str, subject: &str, payload: &str) -> String {
    let stream = TcpStream::connect(url.strip_prefix("nats://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let bytes = payload.len();
    let text =
        format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {bytes}\r\n{payload}\r\n");
    (&stream).write_all(text.as_bytes()).unwrap();
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("MSG ")).unwrap();
    lines.next().unwrap()
}

/// Runs SQL on a PostgreSQL that takes the password in clear text; gives the last row's first column. `Err` is the
/// authentication method's number when it asks for another.
pub fn query(url: &str, sql: &str) -> Result<String, u32> {
    let (user_and_password, rest) = url.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
    let (user, password) = user_and_password.split_once(':').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let database = database.split('?').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let startup = format!("\0\x03\0\0user\0{user}\0database\0{database}\0\0");
    send(&mut stream, None, startup.as_bytes());
    let mut value = String::new();
    loop {
        let (kind, body) = receive(&mut stream);
        match kind {
            b'R' => match u32::from_be_bytes(body[..4].try_into().unwrap()) {
                0 => send(&mut stream, Some(b'Q'), format!("{sql}\0").as_bytes()),
                3 => send(&mut stream, Some(b'p'), format!("{password}\0").as_bytes()),
                method => return Err(method),
            },
            b'D' => value = String::from_utf8_lossy(&body[6..]).into_owned(),
            b'E' => panic!("{sql}: {}", String::from_utf8_lossy(&body)),
            b'C' => return Ok(value),
            _ => {}
        }
    }
}

fn send(stream: &mut TcpStream, kind: Option<u8>, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    let message: Vec<u8> = kind.into_iter().chain(length).chain(body.iter().copied()).collect();
    stream.write_all(&message).unwrap();
}

fn receive(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head[0], body)
}
