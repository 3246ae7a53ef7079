//! The source hosts that are known without configuration, and what their URLs look like (Backstage's default integrations).

use url::Url;

/// How a host forms its URLs.
#[derive(Clone, Copy)]
enum Host {
    GitHub,
    GitLab,
    BitbucketCloud,
    Azure,
    /// Paths resolve as anywhere, and there is nothing to edit: the URL itself.
    Plain,
}

const HOSTS: [(&str, Host); 6] = [
    ("github.com", Host::GitHub),
    ("gitlab.com", Host::GitLab),
    ("bitbucket.org", Host::BitbucketCloud),
    ("dev.azure.com", Host::Azure),
    ("amazonaws.com", Host::Plain),
    ("blob.core.windows.net", Host::Plain),
];

/// Where a person edits the file at `url`; none if the host is unknown, or if the URL is pinned to a commit.
pub(crate) fn edit_url(url: &str) -> Option<String> {
    let (host, parsed) = known(url)?;
    if names_a_commit(url) {
        return None;
    }
    Some(match host {
        Host::GitHub => with_github_type(url, "edit"),
        Host::GitLab => with_gitlab_type(url, "edit"),
        Host::BitbucketCloud => bitbucket_edit_url(parsed),
        Host::Azure | Host::Plain => url.to_owned(),
    })
}

/// The directory of the file at `url`, as a URL; none if the host is unknown.
pub(crate) fn source_url(url: &str) -> Option<String> {
    let (host, base) = known(url)?;
    match host {
        Host::GitHub => Some(with_github_type(&directory(&base)?, "tree")),
        Host::GitLab | Host::BitbucketCloud | Host::Plain => directory(&base),
        Host::Azure => azure_resolved("./", &base).or_else(|| Some(base.join("./").ok()?.into())),
    }
}

/// Whether a URL is one of GitHub's.
pub(crate) fn is_on_github(url: &str) -> bool {
    matches!(known(url), Some((Host::GitHub, _)))
}

fn known(url: &str) -> Option<(Host, Url)> {
    let parsed = Url::parse(url).ok()?;
    if parsed.port().is_some() {
        return None;
    }
    let name = parsed.host_str()?;
    let (_, host) = HOSTS.iter().find(|(known, _)| *known == name)?;
    Some((*host, parsed))
}

/// `./` resolved against the URL, its query kept.
fn directory(base: &Url) -> Option<String> {
    let mut directory = base.join("./").ok()?;
    directory.set_query(base.query());
    Some(directory.into())
}

/// Whether the URL holds a whole word of 40 or more lower-case hex digits (`/\b[0-9a-f]{40,}\b/`).
fn names_a_commit(url: &str) -> bool {
    url.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|word| word.len() >= 40 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

const TYPES: [&str; 3] = ["blob", "tree", "edit"];

/// The first `//host/owner/repo/<blob, tree or edit>/` gets another type.
pub(crate) fn with_github_type(url: &str, wanted: &str) -> String {
    for (start, _) in url.match_indices("//") {
        let after = &url[start + 2..];
        let mut parts = after.splitn(5, '/');
        let head: Vec<&str> = parts.by_ref().take(3).collect();
        let (Some(found), Some(rest)) = (parts.next(), parts.next()) else {
            continue;
        };
        if TYPES.contains(&found) && head.iter().all(|part| !part.is_empty()) {
            return format!("{}//{}/{wanted}/{rest}", &url[..start], head.join("/"));
        }
    }
    url.to_owned()
}

/// The first `/-/<blob, tree or edit>/` gets another type.
fn with_gitlab_type(url: &str, wanted: &str) -> String {
    for (start, separator) in url.match_indices("/-/") {
        let after = &url[start + separator.len()..];
        if let Some((found, rest)) = after.split_once('/')
            && TYPES.contains(&found)
        {
            return format!("{}/-/{wanted}/{rest}", &url[..start]);
        }
    }
    url.to_owned()
}

fn bitbucket_edit_url(mut url: Url) -> String {
    let branch = bitbucket_ref(&url);
    set_query(&mut url, "mode", "edit");
    set_query(&mut url, "at", &branch);
    url.into()
}

/// The segment after `/<owner>/<repo>/src/` (or `raw`, `blob`, `tree`, `edit`); empty if the URL names no branch.
fn bitbucket_ref(url: &Url) -> String {
    let path = percent_decoded(url.path().trim_matches('/'));
    let parts: Vec<&str> = path.split('/').collect();
    match parts.get(2) {
        Some(&("src" | "raw" | "blob" | "tree" | "edit")) => parts.get(3).copied().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// A relative URL as seen from a file of an Azure repository, which the query names; none if the base is none.
pub(crate) fn resolve_azure(relative: &str, base: &str) -> Option<String> {
    match known(base)? {
        (Host::Azure, base) => azure_resolved(relative, &base),
        _ => None,
    }
}

/// Azure names the file in the query (`?path=%2Fdir%2Ffile.yaml`); none if the URL is not one of a repository's branch.
fn azure_resolved(relative: &str, base: &Url) -> Option<String> {
    let parts: Vec<String> = base.path().split('/').map(percent_decoded).collect();
    let git = (2..=4).find(|index| parts.get(*index).is_some_and(|part| part == "_git"))?;
    if parts[1..git].iter().any(String::is_empty) || parts.get(git + 1)?.is_empty() {
        return None;
    }
    let query = |wanted: &str| base.query_pairs().find(|(key, _)| key == wanted).map(|(_, value)| value);
    if query("version").is_some_and(|version| !version.is_empty() && !version.starts_with("GB")) {
        return None;
    }
    let path = query("path").unwrap_or_default();
    let file = Url::parse(&format!("https://a.com{path}")).ok()?;
    let mut url = base.clone();
    set_query(&mut url, "path", file.join(relative).ok()?.path());
    Some(url.into())
}

/// `searchParams.set` of JavaScript: the first of that name is replaced, others of it go, all are written anew.
fn set_query(url: &mut Url, name: &str, value: &str) {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut done = false;
    for (key, old) in url.query_pairs() {
        if key != name {
            pairs.push((key.into_owned(), old.into_owned()));
        } else if !done {
            pairs.push((key.into_owned(), value.to_owned()));
            done = true;
        }
    }
    if !done {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    url.query_pairs_mut().clear().extend_pairs(pairs);
}

/// Percent-decoded; a text that does not decode to UTF-8 stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = bytes
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(escape.unwrap_or(*byte));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(url: &str, edit: Option<&str>, source: Option<&str>) {
        assert_eq!(edit_url(url).as_deref(), edit, "edit url of {url}");
        assert_eq!(source_url(url).as_deref(), source, "source of {url}");
    }

    #[test]
    fn hosts() {
        let commit = "9f8e7d6c5b9f8e7d6c5b9f8e7d6c5b9f8e7d6c5b";
        check(
            "https://github.com/a/b/blob/main/c.yaml",
            Some("https://github.com/a/b/edit/main/c.yaml"),
            Some("https://github.com/a/b/tree/main/"),
        );
        check(
            "https://github.com/a/b/tree/main/dir/c.yaml",
            Some("https://github.com/a/b/edit/main/dir/c.yaml"),
            Some("https://github.com/a/b/tree/main/dir/"),
        );
        check("https://github.com/a/b", Some("https://github.com/a/b"), Some("https://github.com/a/"));
        check(
            &format!("https://github.com/a/b/blob/{commit}/c.yaml"),
            None,
            Some(&format!("https://github.com/a/b/tree/{commit}/")),
        );
        check(
            &format!("https://github.com/a/b/blob/x{commit}/c.yaml"),
            Some(&format!("https://github.com/a/b/edit/x{commit}/c.yaml")),
            Some(&format!("https://github.com/a/b/tree/x{commit}/")),
        );
        check(
            "https://gitlab.com/a/b/-/blob/main/c.yaml?x=1#L3",
            Some("https://gitlab.com/a/b/-/edit/main/c.yaml?x=1#L3"),
            Some("https://gitlab.com/a/b/-/blob/main/?x=1"),
        );
        check(
            "https://bitbucket.org/a/b/src/master/c.yaml",
            Some("https://bitbucket.org/a/b/src/master/c.yaml?mode=edit&at=master"),
            Some("https://bitbucket.org/a/b/src/master/"),
        );
        check(
            "https://bitbucket.org/a/b",
            Some("https://bitbucket.org/a/b?mode=edit&at="),
            Some("https://bitbucket.org/a/"),
        );
        let azure = "https://dev.azure.com/o/p/_git/r?path=%2Fdir%2Fc.yaml&version=GBmain";
        check(azure, Some(azure), Some("https://dev.azure.com/o/p/_git/r?path=%2Fdir%2F&version=GBmain"));
        let bare = "https://dev.azure.com/o/_git/r";
        check(bare, Some(bare), Some("https://dev.azure.com/o/_git/r?path=%2F"));
        let tag = "https://dev.azure.com/o/p/_git/r?path=%2Fc.yaml&version=GTv1";
        check(tag, Some(tag), Some("https://dev.azure.com/o/p/_git/"));
        let plain = "https://amazonaws.com/bucket/c.yaml";
        check(plain, Some(plain), Some("https://amazonaws.com/bucket/"));
        for unknown in ["https://git.example.com/a.yaml", "https://github.com:8443/a/b/blob/m/c", "github.com/a", "x"] {
            check(unknown, None, None);
        }
        check(
            "HTTPS://GitHub.com/a/b/blob/m/c",
            Some("HTTPS://GitHub.com/a/b/edit/m/c"),
            Some("https://github.com/a/b/tree/m/"),
        );
    }

    proptest! {
        #[test]
        fn no_url_is_too_odd(tail in ".{0,40}", host in 0..HOSTS.len()) {
            let url = format!("https://{}/{tail}", HOSTS[host].0);
            let _ = (edit_url(&url), source_url(&url));
        }
    }
}
