//! A traversal's answer as the bytes that are sent: without a message for each node and edge in between.

use api::{
    EncodedTraversal,
    wire::{put_filled, put_message, put_number, put_sized},
};

use super::Walk;

impl Walk<'_> {
    /// The answer: its fields are those of `TraverseRelationsResponse` in `catalog.proto`.
    pub(super) fn answer(self) -> EncodedTraversal {
        let mut out = Vec::with_capacity(self.bytes);
        for (node, number) in self.nodes.iter().zip(0..) {
            put_message(&mut out, 1, |out| {
                put_filled(out, 1, self.ref_of(number));
                put_number(out, 2, node.depth as u64);
                if let Some(entity) = &node.entity {
                    put_sized(out, 3, entity.as_bytes());
                }
                put_number(out, 4, u64::from(node.place.is_some()));
            });
        }
        for edge in &self.edges {
            put_message(&mut out, 2, |out| {
                (1..).zip(self.edge_texts(*edge)).for_each(|(tag, text)| put_filled(out, tag, text));
            });
        }
        put_number(&mut out, 3, u64::from(self.truncated));
        EncodedTraversal::from_bytes(out.into())
    }
}
