//! Watching: the entities that match as they are, then each change, told to any number of watchers.
//!
//! One task applies messages and notes each change in one log; each watcher keeps a place in it. So a change costs the same however many
//! watch, a watcher costs its place, and one that is slow costs the others nothing.

mod answer;
mod hub;
mod log;
mod slice;
mod token;
mod told;
mod watcher;

pub use answer::watch_entities;
pub(crate) use answer::{Shared, begin};
pub(crate) use hub::{Hub, Limits, News};
pub(crate) use log::{Change, Log, Mark, Past, Place};
pub(crate) use token::LIFETIME as TOKEN_LIFETIME;
pub(crate) use told::Told;
pub(crate) use watcher::Watcher;
#[cfg(test)]
pub(crate) use {
    token::ResumeToken,
    watcher::{Begin, Event},
};
