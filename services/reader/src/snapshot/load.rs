//! Reading a snapshot: frames in order, their entities worked in by several threads, a segment of the index at a time.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::format::{Cursor, Frames, Head, Kind, Packed, damaged};
use crate::{
    index::{Dictionary, Rows, SEGMENT_DOCS},
    memory::{Memory, Stored},
    state::State,
    watch::{Past, TOKEN_LIFETIME},
};

/// Reads the snapshot into an empty state; gives where in which stream it stood. None: there is none that can be used, and the state is
/// as empty as it was.
pub(crate) fn load(path: &Path, state: &State) -> Option<Head> {
    let began = Instant::now();
    match read(path, state) {
        Ok(head) => {
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(entities = state.entities(), seconds, file = %path.display(), "the snapshot is read");
            Some(head)
        }
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, file = %path.display(), "the snapshot is not used; the whole stream is read");
            }
            state.memory().clear();
            None
        }
    }
}

fn read(path: &Path, state: &State) -> io::Result<Head> {
    let mut frames = Frames::new(File::open(path)?)?;
    let first = frames.next()?;
    if first.kind != Kind::Head {
        return Err(damaged("it does not begin with its head"));
    }
    let head: Head = serde_json::from_slice(&first.unpack()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now.saturating_sub(head.written) > TOKEN_LIFETIME.as_secs() {
        return Err(damaged("it is older than six days: the stream may have forgotten deletions since"));
    }
    if !head.adopt_hashing() {
        return Err(damaged(
            "its rows are hashed otherwise: by another build of the program, or this process has begun already",
        ));
    }
    let mut traces = Vec::new();
    read_frames(&mut frames, state.memory(), &mut traces)?;
    state.restore(&head, traces);
    Ok(head)
}

/// What becomes one segment: entities, and what the numbers of their rows stand for.
struct Work {
    entities: Vec<Packed>,
    rows: Packed,
}

/// Up to the end, which must come.
fn read_frames(frames: &mut Frames, memory: &Memory, traces: &mut Vec<Past<String>>) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Each thread may have one segment in hand and one to come.
    let (sender, work) = mpsc::sync_channel::<Work>(threads);
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| restore_all(&work, memory))).collect();
        let outcome = distribute(frames, memory, traces, &sender);
        drop(sender);
        let restored = workers.into_iter().map(|worker| worker.join().map_err(|_| damaged("a thread panicked"))?);
        let restored: io::Result<()> = restored.collect();
        outcome.and(restored)
    })
}

fn distribute(
    frames: &mut Frames,
    memory: &Memory,
    traces: &mut Vec<Past<String>>,
    sender: &mpsc::SyncSender<Work>,
) -> io::Result<()> {
    let gone = |_| damaged("a thread ended early");
    let mut entities = Vec::new();
    loop {
        let frame = frames.next()?;
        match frame.kind {
            Kind::Entities => entities.push(frame),
            Kind::Rows => {
                let work = Work { entities: std::mem::take(&mut entities), rows: frame };
                sender.send(work).map_err(gone)?;
            }
            Kind::Dictionary => memory.packer().restore_dictionary(frame.unpack()?),
            Kind::Traces => read_traces(&frame.unpack()?, traces)?,
            Kind::Head => return Err(damaged("it has two heads")),
            Kind::End if entities.is_empty() => return Ok(()),
            Kind::End => return Err(damaged("entities have no rows")),
        }
    }
}

fn restore_all(work: &Mutex<mpsc::Receiver<Work>>, memory: &Memory) -> io::Result<()> {
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return Ok(()) };
        let dictionary = Dictionary::restore(&mut Cursor(&work.rows.unpack()?))?;
        let mut entities = Vec::new();
        for frame in work.entities {
            read_entities(&frame.unpack()?, memory, &mut entities)?;
        }
        if entities.len() > SEGMENT_DOCS || !entities.iter().all(|(_, rows)| dictionary.has(rows)) {
            return Err(damaged("entities do not fit their rows"));
        }
        memory.restore(dictionary, entities);
    }
}

fn read_entities(content: &[u8], memory: &Memory, entities: &mut Vec<(Arc<Stored>, Rows)>) -> io::Result<()> {
    let mut cursor = Cursor(content);
    while !cursor.0.is_empty() {
        let stored = memory.packer().restore(&mut cursor)?;
        entities.push((Arc::new(stored), Rows::of_bytes(cursor.sized()?)));
    }
    Ok(())
}

fn read_traces(content: &[u8], traces: &mut Vec<Past<String>>) -> io::Result<()> {
    let mut cursor = Cursor(content);
    while !cursor.0.is_empty() {
        traces.push((cursor.i64()? as u64, cursor.i64()?, cursor.text()?.to_owned()));
    }
    Ok(())
}
