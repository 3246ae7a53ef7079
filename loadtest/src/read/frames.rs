//! A gRPC client that costs next to nothing: HTTP/2 frames are read as they come and nothing of an answer is decoded but what the caller looks at.
//!
//! Client and broker share one core, on which tonic's client takes longer for a call than the reader does: with it, the client is what is measured.
//! Only what a load test needs is here: requests of known form, no compression, windows that never close.

use crate::Error;
use prost::Message;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use tokio::net::TcpStream;

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head, and of a gRPC message's.
const FRAME_HEAD: usize = 9;
const MESSAGE_HEAD: usize = 5;
/// The largest window there can be, and what the connection's is at first.
const WINDOW: u32 = 0x7fff_ffff;
const FIRST_WINDOW: u32 = 65_535;
/// Bytes taken before the connection's window is opened again.
const OPEN_AGAIN: u32 = 1 << 28;
/// Bytes read at a time.
const READ: usize = 256 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came on a stream.
pub(crate) enum Came<'a> {
    /// A message of the answer.
    Message(&'a [u8]),
    /// The answer is over.
    End,
}

/// One connection, for one task that reads and others that ask.
pub(crate) struct Connection {
    socket: TcpStream,
    /// The rpc's path and the rest of a request's head, as HPACK.
    head: Vec<u8>,
    next_stream: RefCell<u32>,
    out: RefCell<Vec<u8>>,
}

impl Connection {
    /// Connects to `host:port`, to call one rpc of the service.
    ///
    /// # Errors
    /// It cannot be connected to.
    pub async fn open(address: &str, rpc: &str) -> Result<Connection, Error> {
        let lost = |error: io::Error| lost(&error);
        let socket = TcpStream::connect(address).await.map_err(lost)?;
        socket.set_nodelay(true).map_err(lost)?;
        let mut out = PREFACE.to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE.
        let window = [&4_u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
        frame(&mut out, SETTINGS, 0, 0, &window);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
        let head = request_head(address, rpc);
        Ok(Connection { socket, head, next_stream: RefCell::new(1), out: RefCell::new(out) })
    }

    /// Puts a call into what is sent next; gives the number of its stream.
    pub fn ask(&self, request: &impl Message) -> u32 {
        let stream = self.next_stream.replace_with(|next| *next + 2);
        let mut out = self.out.borrow_mut();
        frame(&mut out, HEADERS, END_HEADERS, stream, &self.head);
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let body = [&[0][..], &length.to_be_bytes(), &message].concat();
        frame(&mut out, DATA, END_STREAM, stream, &body);
        stream
    }

    /// Sends what was asked.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn send(&self) -> Result<(), Error> {
        loop {
            let sent = {
                let mut out = self.out.borrow_mut();
                if out.is_empty() {
                    return Ok(());
                }
                let sent = self.socket.try_write(&out);
                if let Ok(bytes) = &sent {
                    out.drain(..*bytes);
                }
                sent
            };
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(|error| lost(&error))?;
                }
                Err(error) => return Err(lost(&error)),
            }
        }
    }

    /// Reads for ever and tells what comes, until `take` says that it is enough.
    ///
    /// # Errors
    /// The connection is lost, or the server says that something is wrong with it.
    pub async fn read(&self, mut take: impl FnMut(u32, Came<'_>) -> bool) -> Result<(), Error> {
        let mut buffer = vec![0; READ];
        let mut unread = Vec::new();
        let mut parts: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut taken = 0;
        loop {
            self.socket.readable().await.map_err(|error| lost(&error))?;
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => unread.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(lost(&error)),
            }
            let mut rest = &unread[..];
            while let Some((kind, flags, stream, payload, after)) = next_frame(rest) {
                rest = after;
                match kind {
                    DATA => {
                        taken += u32::try_from(payload.len()).unwrap_or(0);
                        if !messages(parts.entry(stream).or_default(), payload, |message| {
                            take(stream, Came::Message(message))
                        }) {
                            return Ok(());
                        }
                    }
                    SETTINGS if flags & ACK == 0 => frame(&mut self.out.borrow_mut(), SETTINGS, ACK, 0, &[]),
                    PING if flags & ACK == 0 => frame(&mut self.out.borrow_mut(), PING, ACK, 0, payload),
                    GO_AWAY | RESET => return Err(lost(&io::ErrorKind::ConnectionAborted.into())),
                    _ => {}
                }
                if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                    parts.remove(&stream);
                    if !take(stream, Came::End) {
                        return Ok(());
                    }
                }
            }
            let done = unread.len() - rest.len();
            unread.drain(..done);
            if taken > OPEN_AGAIN {
                frame(&mut self.out.borrow_mut(), WINDOW_UPDATE, 0, 0, &std::mem::take(&mut taken).to_be_bytes());
            }
            self.send().await?;
        }
    }
}

fn lost(error: &io::Error) -> Error {
    let status = tonic::Status::unavailable(format!("the connection is lost: {error}"));
    super::calls::failed("a call in frames", &status)
}

/// A request's head in HPACK (RFC 7541): what the static table has by its number there, the rest as it is, and nothing remembered.
fn request_head(address: &str, rpc: &str) -> Vec<u8> {
    const POST: u8 = 0x80 | 3;
    const HTTP: u8 = 0x80 | 6;
    const AUTHORITY: &[u8] = &[1];
    const PATH: &[u8] = &[4];
    const CONTENT_TYPE: &[u8] = &[15, 31 - 15];
    let mut head = vec![POST, HTTP];
    let mut add = |name: &[u8], value: &str| {
        head.extend_from_slice(name);
        // Below 127 bytes: one byte of length.
        head.push(u8::try_from(value.len()).unwrap_or(0) & 0x7f);
        head.extend_from_slice(value.as_bytes());
    };
    add(PATH, &format!("/callboard.catalog.v1.CatalogService/{rpc}"));
    add(AUTHORITY, address);
    add(CONTENT_TYPE, "application/grpc");
    add(&[0, 2, b't', b'e'], "trailers");
    head
}

/// The contents of a message's fields with tag 1: an answer's entities or results, which have no other fields before them.
pub(crate) fn many(mut message: &[u8]) -> impl Iterator<Item = &[u8]> {
    use prost::encoding::{WireType, decode_key, decode_varint};
    std::iter::from_fn(move || {
        let (1, WireType::LengthDelimited) = decode_key(&mut message).ok()? else { return None };
        let length = decode_varint(&mut message).ok()?;
        let (content, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
        message = rest;
        Some(content)
    })
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Kind, flags, stream and payload of a frame, and what is behind it.
type Frame<'a> = (u8, u8, u32, &'a [u8], &'a [u8]);

/// The first frame; none: it is not all here.
fn next_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (payload, after) = rest.split_at_checked(length)?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW;
    Some((head[3], head[4], stream, payload, after))
}

/// Gives the whole messages of a stream, and keeps what there is of the next; false: it is enough.
fn messages(part: &mut Vec<u8>, payload: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> bool {
    let is_joined = !part.is_empty();
    if is_joined {
        part.extend_from_slice(payload);
    }
    let whole = if is_joined { &part[..] } else { payload };
    let mut rest = whole;
    while let Some((head, after)) = rest.split_at_checked(MESSAGE_HEAD) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some((message, after)) = after.split_at_checked(length) else { break };
        rest = after;
        if !take(message) {
            return false;
        }
    }
    let done = whole.len() - rest.len();
    // What there is of a long message is not copied anew with each frame of it.
    match is_joined {
        true => drop(part.drain(..done)),
        false => part.extend_from_slice(&payload[done..]),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let mut out = Vec::new();
        frame(&mut out, DATA, END_STREAM, 7, b"hello");
        frame(&mut out, PING, 0, 0, &[1; 8]);
        let (kind, flags, stream, payload, after) = next_frame(&out).unwrap();
        assert_eq!((kind, flags, stream, payload), (DATA, END_STREAM, 7, &b"hello"[..]));
        assert_eq!(next_frame(after).map(|found| (found.0, found.3.len(), found.4.len())), Some((PING, 8, 0)));
        assert!((0..14).all(|cut| next_frame(&out[..cut]).is_none()));
    }

    #[test]
    fn the_many_of_an_answer_are_found() {
        let message = [&[10, 2][..], b"ab", &[10, 0], &[10, 1], b"c", &[18, 1], b"d"].concat();
        assert_eq!(many(&message).collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
    }

    #[test]
    fn messages_may_be_cut_anywhere() {
        let bytes = [&[0, 0, 0, 0, 2][..], b"ab", &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 3], b"cde"].concat();
        for cut in 0..=bytes.len() {
            let (mut part, mut found) = (Vec::new(), Vec::new());
            for piece in [&bytes[..cut], &bytes[cut..]] {
                assert!(messages(&mut part, piece, |message| {
                    found.push(message.to_vec());
                    true
                }));
            }
            assert_eq!(found, [b"ab".to_vec(), Vec::new(), b"cde".to_vec()], "cut at {cut}");
            assert!(part.is_empty());
        }
    }
}
