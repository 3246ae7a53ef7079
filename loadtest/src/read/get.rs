//! `GetEntity` and `BatchGetEntities`: as many as the reader answers, and how soon at a rate; by frames, so that the client is not what is measured.

use super::frames::{Came, Connection, many};
use super::paced::Latencies;
use crate::Error;
use api::v1::{BatchGetEntitiesRequest, GetEntityRequest};
use futures::future::try_join_all;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tonic::Status;

/// Connections, and calls at once on each.
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 32;
/// Refs in a batch, and batches at once on each connection.
const BATCH: usize = 100;
const BATCHES: usize = 4;

/// As many `GetEntity` a second as the reader answers: 4 connections with 32 calls at once each.
///
/// # Errors
/// A call that is not answered.
pub(crate) async fn per_second(address: &str, refs: &[String], time: Duration) -> Result<f64, Error> {
    closed_loop(open(address, "GetEntity").await?, IN_FLIGHT, time, |number| request(refs, number), one).await
}

/// As many entities a second as the reader gives by `BatchGetEntities` of 100: 4 connections with 4 calls at once each.
///
/// # Errors
/// A call that is not answered.
pub(crate) async fn batch_per_second(address: &str, refs: &[String], time: Duration) -> Result<f64, Error> {
    let request = |number: usize| {
        let places = (number * BATCH..).take(BATCH);
        let refs = places.map(|place| refs[place % refs.len()].clone()).collect();
        BatchGetEntitiesRequest { refs, ..Default::default() }
    };
    let entities = |message: &[u8]| many(message).filter(|result| !result.is_empty()).count();
    closed_loop(open(address, "BatchGetEntities").await?, BATCHES, time, request, entities).await
}

/// So many calls at once on each connection, for so long, after a fifth of that time to warm up. Gives how many entities came a second, as `count` counts them in
/// an answer.
async fn closed_loop<R: prost::Message>(
    connections: Vec<Connection>,
    in_flight: usize,
    time: Duration,
    request: impl Fn(usize) -> R,
    count: impl Fn(&[u8]) -> usize,
) -> Result<f64, Error> {
    let (begin, found, next) = (Instant::now() + time / 5, Cell::new(0), Cell::new(0));
    let end = begin + time;
    let ask = |connection: &Connection| connection.ask(&request(next.replace(next.get() + 1)));
    let lanes = connections.into_iter().map(|connection| {
        let (ask, count, found) = (&ask, &count, &found);
        async move {
            for _ in 0..in_flight {
                ask(&connection);
            }
            connection.send().await?;
            let mut answers = Answers::default();
            let read = connection.read(|stream, came| {
                if let Some(entities) = answers.whole(stream, &came, count) {
                    let now = Instant::now();
                    found.set(found.get() + if now >= begin && now < end { entities } else { 0 });
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
    let connections = open(address, "GetEntity").await?;
    let latencies = RefCell::new(Latencies::new());
    // When each call was due, by connection and in the order of its streams.
    let due: Vec<RefCell<Vec<Instant>>> = connections.iter().map(|_| RefCell::default()).collect();
    let reads = connections.iter().zip(&due).map(|(connection, due)| {
        let latencies = &latencies;
        async move {
            let (mut open, mut answers) = (count / CONNECTIONS, Answers::default());
            let read = connection.read(|stream, came| {
                if answers.whole(stream, &came, one).is_some() {
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

/// How many entities each stream's answer had: an error comes without a message.
#[derive(Default)]
struct Answers {
    entities: Vec<usize>,
    failed: usize,
}

impl Answers {
    /// Notes what came; once an answer is over, how many entities it had.
    fn whole(&mut self, stream: u32, came: &Came<'_>, count: impl Fn(&[u8]) -> usize) -> Option<usize> {
        let place = stream as usize / 2;
        if self.entities.len() <= place {
            self.entities.resize(place + 1, 0);
        }
        let entities = &mut self.entities[place];
        match came {
            Came::Message(message) => {
                *entities += count(message);
                None
            }
            Came::End => {
                self.failed += usize::from(*entities == 0);
                Some(*entities)
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self.failed {
            0 => Ok(()),
            failed => Err(super::calls::failed("a call", &Status::unknown(format!("{failed} calls failed")))),
        }
    }
}

/// An answer with one entity.
fn one(message: &[u8]) -> usize {
    usize::from(!message.is_empty())
}

async fn open(address: &str, rpc: &str) -> Result<Vec<Connection>, Error> {
    try_join_all((0..CONNECTIONS).map(|_| Connection::open(address, rpc))).await
}

fn request(refs: &[String], number: usize) -> GetEntityRequest {
    GetEntityRequest { r#ref: refs[number % refs.len()].clone(), ..Default::default() }
}
