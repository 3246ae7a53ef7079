//! `GetEntity`: as many as the reader answers, and how soon at a rate; by frames, so that the client is not what is measured.

use super::frames::{Came, Connection};
use super::paced::Latencies;
use crate::Error;
use api::v1::GetEntityRequest;
use futures::future::try_join_all;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tonic::Status;

/// Connections, and calls at once on each.
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 32;

/// As many `GetEntity` a second as the reader answers: 4 connections with 32 calls at once each.
///
/// # Errors
/// A call that is not answered.
pub(crate) async fn per_second(address: &str, refs: &[String], time: Duration) -> Result<f64, Error> {
    let (begin, found, next) = (Instant::now() + time / 5, Cell::new(0), Cell::new(0));
    let end = begin + time;
    let ask = |connection: &Connection| connection.ask(&request(refs, next.replace(next.get() + 1)));
    let lanes = open(address).await?.into_iter().map(|connection| {
        let (ask, found) = (&ask, &found);
        async move {
            for _ in 0..IN_FLIGHT {
                ask(&connection);
            }
            connection.send().await?;
            let mut answers = Answers::default();
            let read = connection.read(|stream, came| {
                if answers.is_over(stream, &came) {
                    let now = Instant::now();
                    found.set(found.get() + usize::from(now >= begin && now < end));
                    if now < end {
                        ask(&connection);
                    }
                }
                Instant::now() < end
            });
            read.await?;
            answers.check()
        }
    });
    try_join_all(lanes).await?;
    Ok(found.get() as f64 / time.as_secs_f64())
}

/// `GetEntity` at a rate, open loop, on as many connections.
///
/// # Errors
/// A call that is not answered.
pub(crate) async fn latencies(address: &str, refs: &[String], rate: f64, time: Duration) -> Result<Latencies, Error> {
    let count = (rate * time.as_secs_f64()) as usize / CONNECTIONS * CONNECTIONS;
    let connections = open(address).await?;
    let latencies = RefCell::new(Latencies::new());
    // When each call was due, by connection and in the order of its streams.
    let due: Vec<RefCell<Vec<Instant>>> = connections.iter().map(|_| RefCell::default()).collect();
    let reads = connections.iter().zip(&due).map(|(connection, due)| {
        let latencies = &latencies;
        async move {
            let (mut open, mut answers) = (count / CONNECTIONS, Answers::default());
            let read = connection.read(|stream, came| {
                if answers.is_over(stream, &came) {
                    latencies.borrow_mut().record(due.borrow()[stream as usize / 2].elapsed());
                    open -= 1;
                }
                open > 0
            });
            read.await?;
            answers.check()
        }
    });
    let ask = async {
        let (begin, mut number) = (Instant::now(), 0);
        let at = |number: usize| begin + Duration::from_secs_f64(number as f64 / rate);
        while number < count {
            let now = Instant::now();
            while number < count && at(number) <= now {
                due[number % CONNECTIONS].borrow_mut().push(at(number));
                connections[number % CONNECTIONS].ask(&request(refs, number));
                number += 1;
            }
            for connection in &connections {
                connection.send().await?;
            }
            // Not asleep until the next is due: between a thread that tells when and one that calls, on one core, milliseconds go by.
            tokio::task::yield_now().await;
        }
        Ok::<(), Error>(())
    };
    futures::try_join!(ask, try_join_all(reads))?;
    Ok(latencies.into_inner())
}

/// Whether each stream's answer had an entity: an error comes without a message.
#[derive(Default)]
struct Answers {
    with_message: Vec<bool>,
    failed: usize,
}

impl Answers {
    /// Notes what came; whether the answer is over.
    fn is_over(&mut self, stream: u32, came: &Came<'_>) -> bool {
        let place = stream as usize / 2;
        if self.with_message.len() <= place {
            self.with_message.resize(place + 1, false);
        }
        match came {
            Came::Message(message) => self.with_message[place] |= !message.is_empty(),
            Came::End => self.failed += usize::from(!self.with_message[place]),
        }
        matches!(came, Came::End)
    }

    fn check(&self) -> Result<(), Error> {
        match self.failed {
            0 => Ok(()),
            failed => Err(super::calls::failed("GetEntity", &Status::unknown(format!("{failed} calls failed")))),
        }
    }
}

async fn open(address: &str) -> Result<Vec<Connection>, Error> {
    try_join_all((0..CONNECTIONS).map(|_| Connection::open(address, "GetEntity"))).await
}

fn request(refs: &[String], number: usize) -> GetEntityRequest {
    GetEntityRequest { r#ref: refs[number % refs.len()].clone(), ..Default::default() }
}
