//! Drives a running installation as an outsider, through NATS and gRPC alone, measures it and judges it.

mod chaos;
mod cli;
mod command;
mod conformance;
mod database;
mod error;
mod events;
mod generate;
mod installation;
mod metrics;
mod peer;
mod plot;
mod process;
mod publish;
mod random;
mod read;
mod report;
mod settle;
mod shape;
mod signal;
mod single;
mod site;
mod snapshot;
mod usage;
mod view;

pub use cli::main;
pub use error::Error;
pub use generate::generate;
