//! A message of a work stream in a worker's hands.

use crate::delivered::Delivered;
use async_nats::Message;
use bytes::Bytes;
use std::time::SystemTime;

/// A message in a worker's hands.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// How often it was delivered, this time included.
    pub deliveries: i64,
    /// When the broker stored it.
    pub published: SystemTime,
    /// In which life of the stream it was taken (see [`crate::Bus::life`]).
    pub life: i64,
    /// On which connection it was taken.
    pub(crate) connection: u64,
    pub(crate) message: Message,
}

impl Item {
    pub(crate) fn new(message: Message, (life, connection): (i64, u64)) -> Option<Item> {
        let Delivered { sequence, deliveries, published, .. } = Delivered::of(&message)?;
        Some(Item { sequence, deliveries, published, life, connection, message })
    }

    /// The body.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// The subject on which it came.
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.message.headers.as_ref()?.get(name)?.as_str())
    }
}
