//! A consumer that needs no acknowledgement: it is sent what stands in the stream, some at a time, and then each message that comes.

use super::consumer::nanoseconds;
use super::core::Core;
use super::line::Wire;
use super::stream::{Parcel, message};
use super::{Fault, Shared};
use std::sync::Weak;
use tokio::sync::mpsc::UnboundedSender;

/// Messages that are sent at a time.
const CHUNK: usize = 16;

/// A consumer that needs no acknowledgement, and lives in the broker's memory.
#[derive(Clone)]
pub(super) struct Reading {
    pub number: u64,
    pub wire: Weak<Wire>,
    pub epoch: u64,
    pub after: u64,
    pub sender: UnboundedSender<Parcel>,
    pub shared: Weak<Shared>,
    pub is_sending: bool,
}

impl Core {
    /// Has each follower sent what it has not got.
    pub(super) fn wake_followers(&mut self, name: &str) {
        let Some(stream) = self.streams.get_mut(name) else { return };
        let idle: Vec<u64> = stream
            .followers
            .iter_mut()
            .filter(|one| !one.is_sending)
            .map(|one| {
                one.is_sending = true;
                one.number
            })
            .collect();
        for number in idle {
            self.send_later(name.to_owned(), number);
        }
    }

    fn send_later(&mut self, name: String, number: u64) {
        let delay = self.streams.get(&name).and_then(|stream| {
            let reading = stream.followers.iter().find(|one| one.number == number)?;
            Some(match reading.shared.upgrade()?.faults.at("bus.follow") {
                Fault::Delay(delay) => nanoseconds(delay),
                _ => 0,
            })
        });
        self.push(self.now + delay.unwrap_or(0), move |core| core.send_some(&name, number));
    }

    fn send_some(&mut self, name: &str, number: u64) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(name) else { return };
        let Some(place) = stream.followers.iter().position(|one| one.number == number) else { return };
        let mut reading = stream.followers.swap_remove(place);
        let Some(wire) =
            reading.wire.upgrade().filter(|wire| wire.epoch() == reading.epoch && !reading.sender.is_closed())
        else {
            return;
        };
        let mut waiting = stream.messages.range(reading.after + 1..).count();
        for (sequence, stored) in stream.messages.range(reading.after + 1..).take(CHUNK) {
            waiting -= 1;
            reading.after = *sequence;
            let reply = format!("$JS.ACK.{name}.follower.1.{sequence}.1.{}.{waiting}", stored.time);
            let _ = reading.sender.send((wire.back(now, 0), reading.epoch, message(stored, reply, true)));
        }
        reading.is_sending = waiting > 0;
        stream.followers.push(reading);
        if waiting > 0 {
            self.send_later(name.to_owned(), number);
        }
    }
}
