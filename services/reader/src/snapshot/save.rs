//! Writing a snapshot: beside the calls, at half of one core's time, and never in the place of one that is whole before it is whole itself.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bus::Stop;

use super::format::{Head, Kind, Writer, put_sized};
use crate::{
    index::Dictionary,
    memory::Stored,
    state::{Kept, State},
};

/// Entities in a frame.
const FRAME: usize = 1024;
/// Bytes of rows from which on a segment is divided.
const ROWS: usize = 96 << 20;

/// What was written.
pub(crate) struct Saved {
    pub entities: usize,
    pub took: Duration,
}

/// Writes a snapshot; none: the reader stops, or is in the middle of a replaced stream.
///
/// What changes while it is written may be in it or not: the stream has it behind the snapshot's sequence.
pub(crate) fn save(path: &Path, state: &State, stop: &Stop) -> io::Result<Option<Saved>> {
    let began = Instant::now();
    let Some(Kept { place, forgotten, watermark, traces }) = state.keep() else { return Ok(None) };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut writer = Writer::new(File::create(&name)?)?;
    let written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let unprocessed = state.unprocessed().keep();
    let (secret, probe) = Head::hashing();
    let head = Head {
        stream: place.stream,
        sequence: place.sequence,
        stored: place.stored,
        watermark,
        forgotten,
        written,
        secret,
        probe,
        unprocessed,
    };
    writer.frame(Kind::Head, &serde_json::to_vec(&head)?)?;
    if let Some(dictionary) = state.memory().packer().dictionary() {
        writer.frame(Kind::Dictionary, dictionary)?;
    }
    let Some(entities) = save_entities(&mut writer, state, stop)? else { return Ok(None) };
    for part in traces.chunks(FRAME) {
        let mut content = Vec::new();
        for (sequence, version, entity_ref) in part {
            content.extend(sequence.to_le_bytes());
            content.extend(version.to_le_bytes());
            put_sized(&mut content, entity_ref.as_bytes());
        }
        writer.frame(Kind::Traces, &content)?;
    }
    writer.end()?;
    fs::rename(&name, path)?;
    Ok(Some(Saved { entities, took: began.elapsed() }))
}

/// None: the reader stops.
fn save_entities(writer: &mut Writer, state: &State, stop: &Stop) -> io::Result<Option<usize>> {
    let mut saved = 0;
    let dictionary = state.memory().packer().dictionary().is_some();
    for segment in state.memory().segments() {
        let all: Vec<Arc<Stored>> = segment.read().unwrap_or_else(PoisonError::into_inner).all();
        // Of its own, so that nobody waits for a lock while it is written.
        let mut rows = Dictionary::default();
        for part in all.chunks(FRAME) {
            if stop.is_stopped() {
                return Ok(None);
            }
            let began = Instant::now();
            let mut content = Vec::new();
            for stored in part {
                stored.save(dictionary, &mut content);
                put_sized(&mut content, rows.number(&stored.flat_rows()).as_bytes());
            }
            writer.frame(Kind::Entities, &content)?;
            saved += part.len();
            if rows.size() > ROWS {
                save_rows(writer, std::mem::take(&mut rows))?;
            }
            // The calls have the other half.
            std::thread::sleep(began.elapsed());
        }
        save_rows(writer, rows)?;
    }
    Ok(Some(saved))
}

fn save_rows(writer: &mut Writer, rows: Dictionary) -> io::Result<()> {
    let mut content = Vec::new();
    rows.save(&mut content);
    writer.frame(Kind::Rows, &content)
}
