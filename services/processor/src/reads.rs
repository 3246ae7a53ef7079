//! What one evaluation reads: each thing once, within a bound, and noted so that the next evaluation can ask whether it changed.

use catalog::hash::bytes_hash;
use futures::StreamExt;
use outside::{Answer, Content, Error, FoundFile, Outside};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Reads of one evaluation that are under way at once.
const AT_ONCE: usize = 8;
/// Before the path or pattern of files in the notes; URLs stand as they are.
const FILES: &str = "file:";

/// What a read gave, as far as it is needed to know it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    hash: String,
}

/// What was read, by URL or by [`FILES`] and path.
pub(crate) type Noted = BTreeMap<String, Seen>;

enum Found {
    Url(Result<Arc<Content>, Error>),
    Files(Result<Arc<Vec<FoundFile>>, Error>),
}

/// The reads of one evaluation.
pub(crate) struct Reads<'o> {
    outside: &'o Outside,
    found: HashMap<String, Found>,
    noted: Noted,
    bytes: usize,
    limit: usize,
}

impl<'o> Reads<'o> {
    pub fn new(outside: &'o Outside, limit: usize) -> Self {
        Reads { outside, found: HashMap::new(), noted: Noted::new(), bytes: 0, limit }
    }

    /// Asks whether anything is other than it was: true if it all is as noted. What is read on the way is not read again.
    pub async fn are_unchanged(&mut self, noted: &Noted) -> bool {
        let outside = self.outside;
        // Made before the first is awaited: a closure that is held meanwhile could not move between threads.
        let asked: Vec<_> = noted.iter().map(|(key, seen)| asked(outside, key, seen)).collect();
        let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut all = true;
        while let Some((key, seen, answer)) = answers.next().await {
            let Some(found) = answer else { continue };
            if hash_of(&found).as_ref() != Some(&seen.hash) {
                all = false;
            }
            self.keep(key, found);
        }
        all
    }

    /// Reads what will be asked for, several at a time.
    pub async fn prefetch(&mut self, keys: Vec<String>) {
        let outside = self.outside;
        let missing: Vec<String> = keys.into_iter().filter(|key| !self.found.contains_key(key)).collect();
        let reading: Vec<_> = missing.into_iter().map(|key| keyed(outside, key)).collect();
        let mut reading = futures::stream::iter(reading).buffer_unordered(AT_ONCE);
        while let Some((key, found)) = reading.next().await {
            self.keep(&key, found);
            if self.bytes > self.limit {
                return;
            }
        }
    }

    pub async fn url(&mut self, url: &str) -> Result<Arc<Content>, Error> {
        match self.get(url).await? {
            Found::Url(found) => found.clone(),
            Found::Files(_) => Err(Error::Refused(format!("{url} is no URL"))),
        }
    }

    pub async fn files(&mut self, target: &str) -> Result<Arc<Vec<FoundFile>>, Error> {
        match self.get(&files_key(target)).await? {
            Found::Files(found) => found.clone(),
            Found::Url(_) => Err(Error::Refused(format!("{target} is no path"))),
        }
    }

    /// Everything that was read with success.
    pub fn noted(&self) -> &Noted {
        &self.noted
    }

    async fn get(&mut self, key: &str) -> Result<&Found, Error> {
        if !self.found.contains_key(key) {
            let found = read(self.outside, key).await;
            self.keep(key, found);
        }
        if self.bytes > self.limit {
            return Err(Error::Refused(format!("more than {} bytes are read for one entity", self.limit)));
        }
        Ok(&self.found[key])
    }

    fn keep(&mut self, key: &str, found: Found) {
        if let Some(hash) = hash_of(&found) {
            let etag = match &found {
                Found::Url(Ok(content)) => content.etag.clone(),
                _ => None,
            };
            self.noted.insert(key.to_owned(), Seen { etag, hash });
        }
        self.bytes += match &found {
            Found::Url(Ok(content)) => content.bytes.len(),
            Found::Files(Ok(files)) => files.iter().map(|file| file.bytes.len()).sum(),
            _ => 0,
        };
        self.found.insert(key.to_owned(), found);
    }
}

/// The key under which files are known.
pub(crate) fn files_key(target: &str) -> String {
    format!("{FILES}{target}")
}

async fn asked<'n>(outside: &Outside, key: &'n str, seen: &'n Seen) -> (&'n str, &'n Seen, Option<Found>) {
    (key, seen, ask(outside, key, seen).await)
}

async fn keyed(outside: &Outside, key: String) -> (String, Found) {
    let found = read(outside, &key).await;
    (key, found)
}

/// None: it is as it was seen.
async fn ask(outside: &Outside, key: &str, seen: &Seen) -> Option<Found> {
    let Some(etag) = seen.etag.as_deref().filter(|_| !key.starts_with(FILES)) else {
        return Some(read(outside, key).await);
    };
    match outside.read_url(key, Some(etag)).await {
        Ok(Answer::NotModified) => None,
        answer => Some(Found::Url(content(answer))),
    }
}

async fn read(outside: &Outside, key: &str) -> Found {
    match key.strip_prefix(FILES) {
        Some(target) => Found::Files(outside.read_files(target).await.map(Arc::new)),
        None => Found::Url(content(outside.read_url(key, None).await)),
    }
}

fn content(answer: Result<Answer, Error>) -> Result<Arc<Content>, Error> {
    match answer? {
        Answer::Content(content) => Ok(Arc::new(content)),
        Answer::NotModified => Err(Error::Refused("it says that it has not changed, and was not asked".to_owned())),
    }
}

/// None for what could not be read.
fn hash_of(found: &Found) -> Option<String> {
    match found {
        Found::Url(Ok(content)) => Some(bytes_hash([content.bytes.as_slice()])),
        Found::Files(Ok(files)) => {
            Some(bytes_hash(files.iter().flat_map(|file| [file.path.as_bytes(), file.bytes.as_slice()])))
        }
        Found::Url(Err(_)) | Found::Files(Err(_)) => None,
    }
}
