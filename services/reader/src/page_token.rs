//! Where the next page begins, as an opaque text that any reader of the same catalog understands.

use api::Error;

use crate::index::Cursor;

/// What a page token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageToken {
    /// Of what the walk began with: filter, query, text and order.
    pub fingerprint: u64,
    /// How many entities matched at the first page.
    pub total: u64,
    /// Where the page before ended.
    pub after: Cursor,
}

/// The first byte of a token: another form of it gets another number.
const FORM: u8 = 2;
/// Form, checksum, fingerprint, total.
const HEAD: usize = 1 + 8 + 8 + 8;

impl PageToken {
    /// The token as text: hexadecimal digits.
    pub fn encode(&self) -> String {
        let mut content = Vec::new();
        content.extend(self.fingerprint.to_be_bytes());
        content.extend(self.total.to_be_bytes());
        for value in &self.after.values {
            match value {
                // A value has at most 200 UTF-16 units.
                Some(value) => {
                    content.extend((value.len() as u16 + 1).to_be_bytes());
                    content.extend(value.as_bytes());
                }
                None => content.extend(0_u16.to_be_bytes()),
            }
        }
        content.extend(u16::MAX.to_be_bytes());
        content.extend(self.after.entity_ref.as_bytes());
        let head = [FORM].into_iter().chain(checksum(&content).to_be_bytes());
        to_hex(head.chain(content.iter().copied()))
    }

    /// Reads a token; refused if it is damaged or of a walk that began with something else.
    pub fn decode(text: &str, fingerprint: u64) -> Result<PageToken, Error> {
        let damaged = || {
            let reason = "expected the next_page_token of an earlier answer, found something else";
            Error::invalid("page_token", reason)
        };
        let token = from_hex(text).and_then(|bytes| PageToken::read(&bytes)).ok_or_else(damaged)?;
        if token.fingerprint != fingerprint {
            let reason = "it belongs to another filter, query, text or order: give those of the first page, or begin without a token";
            return Err(Error::invalid("page_token", reason));
        }
        Ok(token)
    }

    fn read(bytes: &[u8]) -> Option<PageToken> {
        let (head, mut rest) = bytes.split_at_checked(HEAD)?;
        let number = |from: usize| Some(u64::from_be_bytes(head.get(from..from + 8)?.try_into().ok()?));
        if head[0] != FORM || number(1)? != checksum(&bytes[9..]) {
            return None;
        }
        let mut values = Vec::new();
        loop {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            match u16::from_be_bytes(*length) {
                u16::MAX => {
                    let after = Cursor { values, entity_ref: String::from_utf8(behind.to_vec()).ok()? };
                    return Some(PageToken { fingerprint: number(9)?, total: number(17)?, after });
                }
                0 => {
                    values.push(None);
                    rest = behind;
                }
                length => {
                    let (value, behind) = behind.split_at_checked(usize::from(length) - 1)?;
                    values.push(Some(String::from_utf8(value.to_vec()).ok()?));
                    rest = behind;
                }
            }
        }
    }
}

/// A number that tells lists of texts apart, the same in every reader.
pub(crate) fn fingerprint(filter: &[String]) -> u64 {
    // Each string behind its length: ["ab"] and ["a", "b"] differ.
    let lengths: Vec<[u8; 8]> = filter.iter().map(|text| (text.len() as u64).to_be_bytes()).collect();
    fnv(filter.iter().zip(&lengths).flat_map(|(text, length)| [length.as_slice(), text.as_bytes()]))
}

/// A number that tells whether a token's content is as it was written.
pub(crate) fn checksum(content: &[u8]) -> u64 {
    fnv([content])
}

/// FNV-1a over the parts one after another: against mistakes, not against malice; a forged token only begins elsewhere.
fn fnv<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    parts
        .into_iter()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: impl Iterator<Item = u8>) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
    bytes.flat_map(|byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// The bytes of hexadecimal digits; none: it is something else.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(&pair[0])? * 16 + digit(&pair[1])?).ok();
    match text.len() % 2 {
        0 => text.as_bytes().chunks_exact(2).map(byte).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(entity_ref: &str) -> PageToken {
        let values = vec![Some("web".into()), None, Some(String::new())];
        PageToken { fingerprint: 7, total: 42, after: Cursor { values, entity_ref: entity_ref.into() } }
    }

    #[test]
    fn a_token_reads_as_it_was_written() {
        for after in ["component:default/web", "", "ä:ö/ü"] {
            let token = token(after);
            assert_eq!(PageToken::decode(&token.encode(), 7), Ok(token));
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        let text = token("component:default/web").encode();
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert!(PageToken::decode(&damaged, 7).is_err(), "{at}");
            assert!(PageToken::decode(&text[..at], 7).is_err(), "{at}");
        }
        for text in ["x", "zz", "01", "é", "0é", "+1+1"] {
            assert!(PageToken::decode(text, 7).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_told_apart() {
        let filters: [&[&str]; 6] = [&[], &[""], &["ab"], &["a", "b"], &["b", "a"], &["ab", ""]];
        let of = |filter: &[&str]| fingerprint(&filter.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let distinct: std::collections::HashSet<u64> = filters.iter().map(|filter| of(filter)).collect();
        assert_eq!(distinct.len(), filters.len());
        let error = PageToken::decode(&token("a:b/c").encode(), 8).unwrap_err();
        assert!(error.to_string().contains("another filter"), "{error}");
    }
}
