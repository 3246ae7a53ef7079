//! A traversal's answer as the bytes that are sent: without a message for each node and edge in between.

use api::EncodedTraversal;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::Walk;

impl Walk<'_> {
    /// The answer: its fields are those of `TraverseRelationsResponse` in `catalog.proto`.
    pub(super) fn answer(self) -> EncodedTraversal {
        let mut out = Vec::with_capacity(self.bytes);
        for (node, number) in self.nodes.iter().zip(0..) {
            let entity = node.entity.as_ref().map(|entity| &entity.as_bytes()[..]);
            let (depth, exists) = (node.depth as u64, u64::from(node.place.is_some()));
            let texts = [(1, Some(self.ref_of(number).as_bytes())), (3, entity)];
            let numbers = [(2, depth), (4, exists)];
            put_message(&mut out, 1, &texts, &numbers);
        }
        for edge in &self.edges {
            let [source, of_type, target] = self.edge_texts(*edge).map(|text| Some(text.as_bytes()));
            put_message(&mut out, 2, &[(1, source), (2, of_type), (3, target)], &[]);
        }
        put_number(&mut out, 3, u64::from(self.truncated));
        EncodedTraversal::from_bytes(out.into())
    }
}

/// A message of texts and numbers, as a field of another.
fn put_message(out: &mut Vec<u8>, tag: u32, texts: &[(u32, Option<&[u8]>)], numbers: &[(u32, u64)]) {
    let texts = || texts.iter().filter_map(|(tag, text)| Some((*tag, (*text)?)));
    // Each of their tags takes one byte.
    let of_text = |(_, text): (u32, &[u8])| 1 + encoded_len_varint(text.len() as u64) + text.len();
    let of_number = |(_, number): &(u32, u64)| if *number == 0 { 0 } else { 1 + encoded_len_varint(*number) };
    let length: usize = texts().map(of_text).sum::<usize>() + numbers.iter().map(of_number).sum::<usize>();
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
    for (tag, text) in texts() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(text.len() as u64, out);
        out.extend_from_slice(text);
    }
    numbers.iter().for_each(|(tag, number)| put_number(out, *tag, *number));
}

fn put_number(out: &mut Vec<u8>, tag: u32, number: u64) {
    if number != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(number, out);
    }
}
