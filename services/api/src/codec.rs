//! Protobuf as `tonic_prost` has it, but with room for a whole answer before it is written.
//!
//! Without that the room doubles, from eight kilobytes on, and what is written already is copied each time: an answer of a hundred entities once more as a whole.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// The codec of [`crate::ready`].
#[derive(Clone, Debug)]
pub struct ReadyCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ReadyCodec<T, U> {
    fn default() -> Self {
        ReadyCodec(PhantomData)
    }
}

impl<T, U> Codec for ReadyCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ReadyEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> ReadyEncoder<T> {
        ReadyEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstCodec::<T, U>::default().decoder()
    }
}

/// Writes messages.
#[derive(Clone, Debug)]
pub struct ReadyEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ReadyEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }
}
