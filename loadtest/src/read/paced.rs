//! Open-loop measuring: calls begin when they are due, whether those before are done or not, and their latency counts from there.

use super::pin;
use super::side::CLIENT_CORE;
use crate::Error;
use crate::plot::Line;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Latencies, in microseconds.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Latencies {
        // Up to 100 s, to three digits.
        let histogram = Histogram::new_with_bounds(1, 100_000_000, 3);
        Latencies(histogram.expect("the bounds are in order and three digits are allowed"))
    }

    /// One more.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// How they are distributed.
    pub fn curve(&self, name: &str) -> Line {
        Line::quantiles(name, &self.0)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of them does not exceed, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Begins `count` calls at `rate` a second and gives their latencies, each from the moment that it was due. It takes the whole of its core: asleep until
/// the next call is due it would measure its own waking up, some tenths of a millisecond on a virtual machine.
///
/// # Errors
/// The first call that fails.
pub(crate) async fn paced<F>(rate: f64, count: usize, call: impl Fn(usize) -> F) -> Result<Latencies, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let (begin, mut number) = (Instant::now(), 0);
    let mut running = FuturesUnordered::new();
    let mut latencies = Latencies::new();
    while number < count || !running.is_empty() {
        let at = begin + Duration::from_secs_f64(number as f64 / rate);
        if number < count && at <= Instant::now() {
            let answer = call(number);
            running.push(async move { answer.await.map(|()| at.elapsed()) });
            number += 1;
        }
        while let Some(Some(done)) = running.next().now_or_never() {
            latencies.record(done?);
        }
        tokio::task::yield_now().await;
    }
    Ok(latencies)
}

/// The same with calls that are told when they were due, asleep between them: for who shares its core.
///
/// # Errors
/// The first call that fails.
pub(crate) async fn paced_at<F>(rate: f64, count: usize, call: impl Fn(usize, Instant) -> F) -> Result<Latencies, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut due = pacer(rate, count);
    let mut running = FuturesUnordered::new();
    let mut latencies = Latencies::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = running.next() => latencies.record(done?),
            next = due.recv() => match next {
                Some((number, at)) => {
                    let answer = call(number, at);
                    running.push(async move { answer.await.map(|()| at.elapsed()) });
                }
                None => break,
            },
        }
    }
    while let Some(done) = running.next().await {
        latencies.record(done?);
    }
    Ok(latencies)
}

/// Tells each number when it is due. A thread of its own, since the runtime's timers are a millisecond late.
fn pacer(rate: f64, count: usize) -> mpsc::UnboundedReceiver<(usize, Instant)> {
    let (sender, due) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        pin::this_thread(CLIENT_CORE);
        let begin = Instant::now() + Duration::from_millis(20);
        for number in 0..count {
            let at = begin + Duration::from_secs_f64(number as f64 / rate);
            if let Some(early) = at.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            if sender.send((number, at)).is_err() {
                return;
            }
        }
    });
    due
}

/// Does asynchronous work on a thread of its own, on the client's core.
///
/// # Errors
/// Those of the work.
pub(crate) async fn on_client_core<T, W, F>(work: W) -> Result<T, Error>
where
    T: Send + 'static,
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<T, Error>>,
{
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        pin::this_thread(CLIENT_CORE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(4).build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(work()),
            Err(error) => Err(Error::Usage(format!("no async runtime: {error}"))),
        };
        // Nobody waits any more when the run was interrupted.
        let _ = sender.send(outcome);
    });
    done.await.map_err(|_| Error::Usage("the client's thread panicked; this is a bug".to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_waits_for_the_ones_before_counts_its_waiting() {
        let gate = std::rc::Rc::new(tokio::sync::Semaphore::new(1));
        let latencies = paced(1000.0, 20, |_| {
            let gate = gate.clone();
            async move {
                let _one_at_a_time = gate.acquire().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(())
            }
        });
        let latencies = latencies.await.expect("no call fails");
        assert_eq!(latencies.count(), 20);
        // The last was due after 19 ms and done after at least 100.
        assert!(latencies.quantile_ms(1.0) > 75.0, "{latencies:?}");
        assert!(latencies.quantile_ms(0.01) < 60.0, "{latencies:?}");
    }
}
