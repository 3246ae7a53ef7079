//! Protobuf's fields, written one after the other: for messages that are encoded without being built first. Tags are below 16.

/// The wire type of numbers and flags.
pub const VARINT: u8 = 0;
/// That of doubles.
pub const DOUBLE: u8 = 1;
/// That of texts, bytes and messages.
const SIZED: u8 = 2;

/// A message whose length is known once it is written: one byte is left for it, and where that is too short the message moves.
pub fn put_message(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
    put_key(out, tag, SIZED);
    let start = out.len();
    out.push(0);
    content(out);
    let length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return;
    }
    let end = out.len();
    put_varint(out, length as u64);
    let bytes = out.len() - end;
    // Behind the message now; it belongs before it, over the byte that was left.
    out[start + 1..].rotate_right(bytes);
    out.remove(start);
}

/// A text, unless it is empty.
pub fn put_filled(out: &mut Vec<u8>, tag: u8, text: &str) {
    if !text.is_empty() {
        put_sized(out, tag, text.as_bytes());
    }
}

/// A text, bytes or an encoded message.
pub fn put_sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put_key(out, tag, SIZED);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Tags are below 16, so that a key is one byte.
pub fn put_key(out: &mut Vec<u8>, tag: u8, wire_type: u8) {
    out.push((tag << 3) | wire_type);
}

/// A number alone.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A number or a flag, unless it is 0.
pub fn put_number(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number != 0 {
        put_key(out, tag, VARINT);
        put_varint(out, number);
    }
}
