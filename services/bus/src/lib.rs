//! The only crate with NATS: subjects, streams, durable consumers, the one worker loop.
