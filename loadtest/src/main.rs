//! Drives a running installation as an outsider, through NATS and gRPC alone, measures it and judges it.
fn main() {}
