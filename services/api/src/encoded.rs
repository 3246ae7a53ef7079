//! Messages as bytes that stand ready: made once, put into every answer as they are.

use std::{fmt, marker::PhantomData};

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes, BytesMut},
    encoding::{self, DecodeContext, WireType},
};

use crate::v1;

/// A [`v1::Entity`], encoded.
pub type EncodedEntity = Encoded<v1::Entity>;
/// A [`v1::TraverseRelationsResponse`], encoded.
pub type EncodedTraversal = Encoded<v1::TraverseRelationsResponse>;

/// A message, encoded. On the wire the two are one; a clone shares the bytes.
pub struct Encoded<M>(Bytes, PhantomData<fn() -> M>);

impl<M> Encoded<M> {
    /// Takes bytes as they are: those of an encoded message of this type, which is not checked.
    pub fn from_bytes(bytes: Bytes) -> Encoded<M> {
        Encoded(bytes, PhantomData)
    }

    /// The bytes, without the length that stands before them in an answer.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl<M> Clone for Encoded<M> {
    fn clone(&self) -> Self {
        Encoded::from_bytes(self.0.clone())
    }
}

impl<M> Default for Encoded<M> {
    fn default() -> Self {
        Encoded::from_bytes(Bytes::new())
    }
}

impl<M> PartialEq for Encoded<M> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<M> Eq for Encoded<M> {}

impl<M> fmt::Debug for Encoded<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a message of {} bytes", self.0.len())
    }
}

impl EncodedEntity {
    /// The entity.
    ///
    /// # Errors
    /// The bytes are not an entity's: they came from elsewhere, damaged.
    pub fn entity(&self) -> Result<v1::Entity, DecodeError> {
        v1::Entity::decode(self.0.clone())
    }
}

impl From<&v1::Entity> for EncodedEntity {
    fn from(entity: &v1::Entity) -> EncodedEntity {
        EncodedEntity::from_bytes(entity.encode_to_vec().into())
    }
}

impl<M> Message for Encoded<M> {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    /// Keeps each field as it comes. The messages have two wire types; a field of another one would be unknown, and is passed over.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut kept = match std::mem::take(&mut self.0).try_into_mut() {
            Ok(kept) => kept,
            Err(shared) => BytesMut::from(shared),
        };
        let read = keep_field(&mut kept, tag, wire_type, buffer, context);
        self.0 = kept.freeze();
        read
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn keep_field(
    kept: &mut BytesMut,
    tag: u32,
    wire_type: WireType,
    buffer: &mut impl Buf,
    context: DecodeContext,
) -> Result<(), DecodeError> {
    match wire_type {
        WireType::LengthDelimited => {
            let mut field = Bytes::new();
            encoding::bytes::merge(wire_type, &mut field, buffer, context)?;
            encoding::bytes::encode(tag, &field, kept);
        }
        WireType::Varint => {
            let number = encoding::decode_varint(buffer)?;
            encoding::encode_key(tag, wire_type, kept);
            encoding::encode_varint(number, kept);
        }
        _ => encoding::skip_field(wire_type, tag, buffer, context)?,
    }
    Ok(())
}
