//! The whole catalog in one stream: how long it takes and what memory the reader needs for it, a client that takes nothing beside it.

use super::calls::{Client, Many, failed};
use super::frames::{Came, Connection, many};
use crate::report::Report;
use crate::{Error, usage};
use api::v1::StreamEntitiesRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often the reader's memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// Streams everything twice, the second time beside a stalled client.
pub(crate) async fn measure(address: &str, pid: u32, entities: usize, report: &mut Report) -> Result<(), Error> {
    let before = usage::resident_bytes(pid).unwrap_or(0);
    let memory = Peak::watch(pid);
    let (seconds, found) = stream(address).await?;
    report.figure("stream_seconds", seconds, "s");
    report.equal("entities streamed", entities as f64, found as f64);
    let other = Client::connect(address).await?;
    // It takes its first chunk and nothing more.
    let mut stalled = other
        .stream::<_, Many>("StreamEntities", StreamEntitiesRequest::default())
        .await
        .map_err(|status| failed("StreamEntities", &status))?;
    stalled.message().await.map_err(|status| failed("StreamEntities", &status))?;
    let (seconds, _) = stream(address).await?;
    report.figure("stream_beside_stalled_seconds", seconds, "s");
    let above = memory.end().saturating_sub(before);
    report.figure("stream_memory_mib", above as f64 / f64::from(1 << 20), "MiB");
    Ok(())
}

async fn stream(address: &str) -> Result<(f64, usize), Error> {
    let connection = Connection::open(address, "StreamEntities").await?;
    let (began, mut found) = (Instant::now(), 0);
    connection.ask(&StreamEntitiesRequest::default());
    connection.send().await?;
    let read = connection.read(|_, came| {
        match came {
            Came::Message(chunk) => found += many(chunk).count(),
            Came::End => return false,
        }
        true
    });
    read.await?;
    Ok((began.elapsed().as_secs_f64(), found))
}

/// The most memory that a process holds, from now on until the end.
struct Peak {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Peak {
    fn watch(pid: u32) -> Peak {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let peak = Peak { most: most.clone(), over: over.clone() };
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                most.fetch_max(usage::resident_bytes(pid).unwrap_or(0), Relaxed);
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        peak
    }

    fn end(self) -> u64 {
        self.most.load(Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}
