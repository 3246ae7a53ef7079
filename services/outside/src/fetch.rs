//! One URL, read: each redirect is allowed itself, nothing is larger or longer than the limits, and an ETag makes it a question of "changed?".

use crate::address::{Lookup, NotPublic, Resolver};
use crate::hosts::{Allowed, Hosts, shown};
use crate::{Error, Limits};
use flate2::read::MultiGzDecoder;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The most redirects (Backstage's `MAX_REDIRECTS`).
const MAX_REDIRECTS: usize = 5;
/// The longest ETag that is remembered, in bytes.
const ETAG_BYTES: usize = 1024;

/// What a URL gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is what it was when it had that ETag.
    NotModified,
    /// Its content.
    Content(Content),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// By which it can be asked whether it changed.
    pub etag: Option<String>,
}

pub(crate) struct Fetch {
    hosts: Hosts,
    /// Connects to public addresses only.
    public: Client,
    /// Connects to whatever address a name leads to, for entries that allow it.
    private: Client,
    limits: Limits,
    /// Reads at once, at each host entry.
    by_host: Vec<Semaphore>,
}

impl Fetch {
    pub fn new(hosts: Hosts, limits: Limits, lookup: &Lookup) -> Result<Self, Error> {
        // Another part of the program may have chosen the same before; any choice will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |may_be_private| {
            let resolver = Resolver { lookup: lookup.clone(), may_be_private };
            Client::builder()
                .dns_resolver(Arc::new(resolver))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .user_agent(concat!("callboard/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.timeout)
                .read_timeout(limits.timeout)
                .pool_idle_timeout(Duration::from_secs(30))
                .build()
                .map_err(|error| Error::Unusable(format!("HTTP client: {error}")))
        };
        let (public, private) = (client(false)?, client(true)?);
        let by_host = hosts.entries.iter().map(|_| Semaphore::new(limits.at_once_per_host)).collect();
        Ok(Fetch { hosts, public, private, limits, by_host })
    }

    /// Whether a URL is one that may be read, before any redirect.
    pub fn check(&self, url: &str) -> Result<(), Error> {
        self.hosts.request(url).map(|_| ())
    }

    pub async fn read(&self, url: &str, etag: Option<&str>) -> Result<Answer, Error> {
        let request = self.hosts.request(url)?;
        let _turn = self.by_host[request.entry].acquire().await;
        let answer = tokio::time::timeout(self.limits.timeout, self.follow(url, request, etag)).await;
        answer.unwrap_or_else(|_| {
            Err(Error::Away(format!("{url} took longer than {} seconds", self.limits.timeout.as_secs_f32())))
        })
    }

    async fn follow(&self, asked: &str, mut request: Allowed, etag: Option<&str>) -> Result<Answer, Error> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&request, etag).await?;
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match (status, location) {
                (StatusCode::NOT_MODIFIED, _) if etag.is_some() => return Ok(Answer::NotModified),
                // Azure's sign-in page instead of the file.
                (StatusCode::NON_AUTHORITATIVE_INFORMATION, _) => return Err(failed(asked, &request, status)),
                (_, Some(location)) if status.is_redirection() => request = self.hosts.redirect(&request, location)?,
                _ if status.is_success() => return self.content(asked, response).await.map(Answer::Content),
                _ => return Err(failed(asked, &request, status)),
            }
        }
        Err(Error::Refused(format!("Too many redirects (max {MAX_REDIRECTS}) when reading {asked}")))
    }

    async fn send(&self, request: &Allowed, etag: Option<&str>) -> Result<Response, Error> {
        let entry = &self.hosts.entries[request.entry];
        let client = if entry.allow_private { &self.private } else { &self.public };
        let mut building = client.get(request.url.clone()).header(ACCEPT_ENCODING, "gzip");
        if let Some(etag) = etag {
            building = building.header(IF_NONE_MATCH, etag);
        }
        if request.with_token {
            building = entry.authorized(building);
        }
        if entry.is_github() {
            building = building.header(ACCEPT, "application/vnd.github.v3.raw");
        }
        building.send().await.map_err(|error| unreachable(request, &error))
    }

    async fn content(&self, asked: &str, mut response: Response) -> Result<Content, Error> {
        let limit = self.limits.bytes;
        let too_large = || Error::Refused(format!("{asked} is larger than {limit} bytes"));
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.filter(|etag| etag.len() <= ETAG_BYTES).map(str::to_owned);
        let encoding =
            response.headers().get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase());
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let broken =
            |error: reqwest::Error| Error::Away(format!("{asked} could not be read to its end: {}", said(&error)));
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if bytes.len() + chunk.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        let bytes = match encoding.as_deref() {
            None | Some(b"" | b"identity") => bytes,
            Some(b"gzip" | b"x-gzip") => unzipped(&bytes, limit)
                .map_err(|error| Error::Refused(format!("{asked} is no gzip: {error}")))?
                .ok_or_else(too_large)?,
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                return Err(Error::Refused(format!("{asked} is encoded as {other}, which was not asked for")));
            }
        };
        Ok(Content { bytes, etag })
    }
}

/// None: more than the limit.
fn unzipped(bytes: &[u8], limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    MultiGzDecoder::new(bytes).take(limit as u64 + 1).read_to_end(&mut content)?;
    Ok((content.len() <= limit).then_some(content))
}

fn failed(asked: &str, request: &Allowed, status: StatusCode) -> Error {
    let read_as = shown(&request.url);
    let status_text = status.canonical_reason().unwrap_or_default();
    let message = match read_as == asked {
        true => format!("could not read {asked}, {} {status_text}", status.as_u16()),
        false => format!("{asked} could not be read as {read_as}, {} {status_text}", status.as_u16()),
    };
    match status {
        StatusCode::NOT_FOUND => Error::NotFound(message),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Error::Away(message),
        _ if status.is_server_error() => Error::Away(message),
        _ => Error::Refused(message),
    }
}

fn unreachable(request: &Allowed, error: &reqwest::Error) -> Error {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(one) = cause {
        if one.is::<NotPublic>() {
            return Error::NotAllowed(format!("URL not allowed: {}: {NotPublic}", shown(&request.url)));
        }
        cause = one.source();
    }
    Error::Away(format!("Unable to read {}, {}", shown(&request.url), said(error)))
}

/// The innermost cause: what stands around it repeats the URL.
fn said(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    inner.to_string()
}
