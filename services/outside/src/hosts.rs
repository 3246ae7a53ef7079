//! Which URLs may be read: the hosts that the configuration names, their paths, and whose token goes where.

use crate::Error;
use crate::address::is_public;
use catalog::git_url::{HostKind, raw_url};
use reqwest::RequestBuilder;
use serde::Deserialize;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use url::{Host as UrlHost, Url};

/// A host that may be read, as configuration has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// `example.com`, or `*.example.com` for the names below it; `:port` or `:from-to` behind it where it is not the scheme's own. Read by https, or by
    /// http if `http://` stands before it. An address in place of a name is allowed even if it is private: it is named.
    pub host: String,
    /// Only these paths and what is below them; without it, all.
    #[serde(default)]
    pub paths: Option<Vec<String>>,
    /// The name may lead to addresses that are not public ones.
    #[serde(default)]
    pub allow_private: bool,
    /// How files are asked for [default: by the name of the host; `plain` if it is none of the known ones].
    #[serde(default, rename = "type")]
    pub kind: Option<HostKind>,
    /// Where the API is, for example `https://git.example.com/api/v4` [default: that of the known hosts].
    #[serde(default)]
    pub api: Option<String>,
    /// Environment variable that holds the token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// File that holds the token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// User name that belongs to the token, where the host wants one (Bitbucket).
    #[serde(default)]
    pub username: Option<String>,
}

/// A host entry, understood.
pub(crate) struct Entry {
    scheme: &'static str,
    name: Pattern,
    ports: RangeInclusive<u16>,
    paths: Option<Vec<String>>,
    kind: HostKind,
    api: Option<Url>,
    credential: Option<Credential>,
    pub allow_private: bool,
}

/// What is shown to the host; never to another one, and in no message.
struct Credential {
    /// None: the token alone.
    user: Option<String>,
    token: String,
}

enum Pattern {
    Exactly(String),
    /// With the dot.
    Below(String),
}

/// A request that is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    pub url: Url,
    /// Which entry allows it.
    pub entry: usize,
    /// It asks the entry's API, which is elsewhere.
    is_api: bool,
    /// The entry's token goes with it.
    pub with_token: bool,
}

/// The hosts that may be read.
pub(crate) struct Hosts {
    pub entries: Vec<Entry>,
}

impl Hosts {
    pub fn new(hosts: &[Host]) -> Result<Self, Error> {
        let entries = hosts.iter().map(|host| {
            understand(host).map_err(|what| Error::Unusable(format!("host {:?} that may be read: {what}", host.host)))
        });
        Ok(Hosts { entries: entries.collect::<Result<_, _>>()? })
    }

    /// The request for what stands at a URL.
    pub fn request(&self, text: &str) -> Result<Allowed, Error> {
        let url = Url::parse(text).map_err(|error| Error::Refused(format!("Invalid URL: {error}")))?;
        let entry = self.find(&url)?;
        let found = &self.entries[entry];
        let Some(api) = &found.api else {
            return Ok(Allowed { url, entry, is_api: false, with_token: true });
        };
        let raw = raw_url(text, found.kind, api.as_str()).map_err(Error::Refused)?;
        let url = Url::parse(&raw).map_err(|error| Error::Refused(format!("Invalid URL: {error}")))?;
        match is_below(&url, api) {
            true => Ok(Allowed { url, entry, is_api: true, with_token: true }),
            false => Err(Error::NotAllowed(format!("{text} leads out of the API of its host"))),
        }
    }

    /// The request after a redirect: it has to be allowed itself, and another origin gets no token.
    pub fn redirect(&self, from: &Allowed, location: &str) -> Result<Allowed, Error> {
        let url = from
            .url
            .join(location)
            .map_err(|error| Error::Refused(format!("{} leads to no URL: {error}", shown(&from.url))))?;
        let with_token = from.with_token && url.origin() == from.url.origin();
        let stays = |api: &&Url| from.is_api && is_below(&url, api);
        if self.entries[from.entry].api.as_ref().filter(stays).is_some() {
            return Ok(Allowed { url, with_token, ..from.clone() });
        }
        let entry = self.find(&url)?;
        Ok(Allowed { url, entry, is_api: false, with_token: with_token && entry == from.entry })
    }

    fn find(&self, url: &Url) -> Result<usize, Error> {
        let refused = |what: &str| Err(Error::NotAllowed(format!("URL not allowed: {}: {what}", shown(url))));
        if !matches!(url.scheme(), "http" | "https") {
            return refused("only http and https are read");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("it holds a user name or password");
        }
        let Some(entry) = self.entries.iter().position(|entry| entry.allows(url)) else {
            return refused("no host that may be read matches it");
        };
        match address_of(url) {
            Some(address) if !is_public(address) && !self.entries[entry].allow_private => {
                refused("its address is not public")
            }
            _ => Ok(entry),
        }
    }
}

impl Entry {
    /// The request, with what shows to the host who asks.
    pub fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credential {
            None => request,
            Some(Credential { user: None, token }) => request.bearer_auth(token),
            Some(Credential { user: Some(user), token }) => request.basic_auth(user, Some(token)),
        }
    }

    /// Asks for a file's content where the API would describe it.
    pub fn is_github(&self) -> bool {
        self.kind == HostKind::GitHub
    }

    fn allows(&self, url: &Url) -> bool {
        let is_named = url.host_str().is_some_and(|name| match &self.name {
            Pattern::Exactly(exact) => name == exact,
            Pattern::Below(suffix) => name.ends_with(suffix.as_str()),
        });
        let port = url.port_or_known_default().unwrap_or_default();
        is_named && url.scheme() == self.scheme && self.ports.contains(&port) && self.allows_path(url.path())
    }

    /// A path that hides separators in escapes is told apart by no prefix.
    fn allows_path(&self, path: &str) -> bool {
        let Some(paths) = &self.paths else { return true };
        let lower = path.to_ascii_lowercase();
        let hides = ["%2f", "%5c", "%2e", "%25", "\\", "//"].iter().any(|hidden| lower.contains(hidden));
        let is_below = |allowed: &String| {
            path == allowed
                || path
                    .strip_prefix(allowed.as_str())
                    .is_some_and(|rest| allowed.ends_with('/') || rest.starts_with('/'))
        };
        !hides && paths.iter().any(is_below)
    }
}

fn address_of(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        UrlHost::Domain(_) => None,
        UrlHost::Ipv4(address) => Some(address.into()),
        UrlHost::Ipv6(address) => Some(address.into()),
    }
}

fn is_below(url: &Url, api: &Url) -> bool {
    let base = api.path().trim_end_matches('/');
    url.origin() == api.origin() && url.path().strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// A URL without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn understand(host: &Host) -> Result<Entry, String> {
    let (scheme, rest) = match host.host.split_once("://") {
        None => ("https", host.host.as_str()),
        Some(("https", rest)) => ("https", rest),
        Some(("http", rest)) => ("http", rest),
        Some((other, _)) => return Err(format!("scheme {other} is not read, only https and http")),
    };
    let (name, ports) = name_and_ports(rest.trim_end_matches('/'), scheme)?;
    let (name, is_pattern) = match name.strip_prefix("*.") {
        Some(below) => (below, true),
        None => (name, false),
    };
    // As it stands in URLs: lower case, punycode, addresses in their one form.
    let parsed = Url::parse(&format!("{scheme}://{name}/")).map_err(|error| error.to_string())?;
    let canonical = parsed.host_str().filter(|_| parsed.path() == "/").ok_or("expected a host")?.to_owned();
    let is_address = address_of(&parsed).is_some();
    if is_pattern && is_address {
        return Err("an address has no names below it".to_owned());
    }
    let credential = credential(host)?;
    let kind = host.kind.unwrap_or_else(|| known_kind(&canonical));
    let (kind, api) = api(host, kind, &canonical, credential.is_some())?;
    Ok(Entry {
        scheme,
        name: if is_pattern { Pattern::Below(format!(".{canonical}")) } else { Pattern::Exactly(canonical) },
        ports,
        paths: host.paths.clone(),
        kind,
        api,
        credential,
        allow_private: host.allow_private || is_address,
    })
}

fn name_and_ports<'a>(rest: &'a str, scheme: &str) -> Result<(&'a str, RangeInclusive<u16>), String> {
    let default = if scheme == "https" { 443 } else { 80 };
    let is_bare_v6 = rest.starts_with('[') && rest.ends_with(']');
    let Some((name, ports)) = rest.rsplit_once(':').filter(|_| !is_bare_v6) else {
        return Ok((rest, default..=default));
    };
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(from), port(to)) {
        (Some(from), Some(to)) if from <= to => Ok((name, from..=to)),
        _ => Err(format!("{ports} is no port and no range of ports")),
    }
}

fn known_kind(name: &str) -> HostKind {
    match name {
        "github.com" => HostKind::GitHub,
        "gitlab.com" => HostKind::GitLab,
        "bitbucket.org" => HostKind::Bitbucket,
        "dev.azure.com" => HostKind::Azure,
        _ => HostKind::Plain,
    }
}

/// Where files are asked for. At GitHub, those without a token get them from where nobody counts their requests.
fn api(host: &Host, kind: HostKind, name: &str, has_token: bool) -> Result<(HostKind, Option<Url>), String> {
    let (kind, known) = match (kind, name) {
        (HostKind::Plain, _) => return Ok((kind, None)),
        (HostKind::GitHub, "github.com") if !has_token && host.api.is_none() => {
            (HostKind::GitHubRaw, Some("https://raw.githubusercontent.com"))
        }
        (HostKind::GitHub, "github.com") => (kind, Some("https://api.github.com")),
        (HostKind::GitLab, "gitlab.com") => (kind, Some("https://gitlab.com/api/v4")),
        (HostKind::Bitbucket, "bitbucket.org") => (kind, Some("https://api.bitbucket.org/2.0")),
        (HostKind::Azure, "dev.azure.com") => (kind, Some("https://dev.azure.com")),
        _ => (kind, None),
    };
    let api = host.api.as_deref().or(known).ok_or("its type needs an api")?;
    let url = Url::parse(api).map_err(|error| format!("api {api:?}: {error}"))?;
    match matches!(url.scheme(), "http" | "https") && url.query().is_none() {
        true => Ok((kind, Some(url))),
        false => Err(format!("api {api:?}: expected https://host/path")),
    }
}

fn credential(host: &Host) -> Result<Option<Credential>, String> {
    let token = match (&host.token_env, &host.token_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err("token_env and token_file are both given: give one".to_owned()),
        (Some(name), None) => std::env::var(name).map_err(|_| format!("environment variable {name} is not set"))?,
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let token = token.trim().to_owned();
    if token.is_empty() || token.contains(|letter: char| letter.is_control()) {
        return Err("its token is empty or holds control characters".to_owned());
    }
    // Azure takes a token as the password of nobody.
    let is_azure = host.kind == Some(HostKind::Azure) || host.host.ends_with("dev.azure.com");
    let user = host.username.clone().or_else(|| is_azure.then(String::new));
    Ok(Some(Credential { user, token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(entries: serde_json::Value) -> Result<Hosts, Error> {
        let entries: Vec<Host> = serde_json::from_value(entries).expect("entries");
        Hosts::new(&entries)
    }

    fn check(entry: serde_json::Value, allowed: &[&str], refused: &[&str]) {
        let hosts = hosts(serde_json::json!([entry])).expect("usable");
        for url in allowed {
            assert!(hosts.request(url).is_ok(), "{url}: {:?}", hosts.request(url));
        }
        for url in refused {
            assert!(hosts.request(url).is_err(), "{url}");
        }
    }

    #[test]
    fn entries() {
        use serde_json::json;
        check(
            json!({"host": "h.example"}),
            &["https://h.example/a", "https://H.EXAMPLE:443/"],
            &[
                "http://h.example/",
                "https://h.example:444/",
                "https://x.h.example/",
                "https://h.example.evil/",
                "h.example",
            ],
        );
        check(
            json!({"host": "*.h.example:8000-8010"}),
            &["https://a.h.example:8000/", "https://b.a.h.example:8010/"],
            &["https://h.example:8000/", "https://evilh.example:8000/", "https://a.h.example/"],
        );
        check(
            json!({"host": "http://127.0.0.1:8080"}),
            &["http://127.0.0.1:8080/", "http://0x7f.1:8080/"],
            &["http://127.0.0.1/", "http://127.0.0.2:8080/", "https://127.0.0.1:8080/", "http://u@127.0.0.1:8080/"],
        );
        check(json!({"host": "http://[::1]:81"}), &["http://[::1]:81/"], &["http://[::1]/"]);
        check(json!({"host": "[2606::1]"}), &["https://[2606::1]/"], &["https://[2606::2]/"]);
        check(
            json!({"host": "h.example", "paths": ["/org", "/dir/"]}),
            &[
                "https://h.example/org",
                "https://h.example/org/a",
                "https://h.example/dir/a",
                "https://h.example/x/../org",
            ],
            &[
                "https://h.example/organ",
                "https://h.example/dir",
                "https://h.example/org/../x",
                "https://h.example/org/%2e%2e/x",
                "https://h.example/org/..%2fx",
                "https://h.example/org/%5c..%5cx",
                "https://h.example/org//x",
            ],
        );
    }

    #[test]
    fn unusable_entries() {
        use serde_json::json;
        for (entry, expected) in [
            (json!({"host": "ftp://h"}), "scheme ftp"),
            (json!({"host": "h:0"}), "no port"),
            (json!({"host": "h:9-8"}), "no port"),
            (json!({"host": "h/path"}), "expected a host"),
            (json!({"host": "*.10.0.0.1"}), "no names below"),
            (json!({"host": "git.example", "type": "gitlab"}), "needs an api"),
            (json!({"host": "h", "token_env": "CALLBOARD_TEST_NO_SUCH"}), "is not set"),
        ] {
            let error = hosts(json!([entry])).err().expect("unusable").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn known_hosts_are_asked_by_their_api() {
        use serde_json::json;
        let all = hosts(json!([{"host": "github.com", "paths": ["/a"]}, {"host": "dev.azure.com"}])).expect("usable");
        let request = all.request("https://github.com/a/b/blob/main/c.yaml").expect("allowed");
        assert_eq!(request.url.as_str(), "https://raw.githubusercontent.com/a/b/main/c.yaml");
        assert!(all.request("https://github.com/x/b/blob/main/c.yaml").is_err());
        assert!(all.request("https://raw.githubusercontent.com/a/b/main/c.yaml").is_err(), "it is not listed itself");
        let moved = all.redirect(&request, "https://raw.githubusercontent.com/a/c/main/c.yaml").expect("the same API");
        assert!(moved.with_token);
        assert!(all.redirect(&request, "https://evil.example/").is_err());
        let other = all.redirect(&request, "https://dev.azure.com/x").expect("a host that is listed");
        assert!(!other.with_token);
    }
}
