//! URLs of files in repositories, as they stand in a browser: what they name, what is relative to them, and where the file's raw content is.

use crate::scm;
use url::Url;

/// How the servers of a host are asked for a file's raw content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// `https://github.com/<owner>/<repository>/blob/<branch>/<path>`, by the contents API.
    GitHub,
    /// The same, from where GitHub serves raw files to everybody.
    #[serde(skip)]
    GitHubRaw,
    /// `https://gitlab.com/<group…>/<project>/-/blob/<branch>/<path>`, by the repository files API.
    GitLab,
    /// `https://bitbucket.org/<workspace>/<repository>/src/<branch>/<path>`, by the source API of Bitbucket Cloud.
    Bitbucket,
    /// `https://dev.azure.com/<organization>/<project>/_git/<repository>?path=<path>&version=GB<branch>`, by the items API.
    Azure,
    /// The URL itself is the content's.
    Plain,
}

/// A file in a repository, as its URL names it (the npm package `git-url-parse`, as far as Backstage relies on it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitUrl {
    pub resource: String,
    /// Owner or groups.
    pub owner: String,
    pub name: String,
    /// `blob`, `tree`, `raw`, `src` or `edit`.
    pub path_type: String,
    pub branch: String,
    /// Below the repository's root; empty if the URL names none.
    pub file_path: String,
}

const PATH_TYPES: [&str; 5] = ["raw", "src", "blob", "tree", "edit"];

impl GitUrl {
    /// None if the URL is none of a repository.
    pub fn parse(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let path = scm::percent_decoded(url.path().trim_matches('/'));
        let parts: Vec<&str> = path.split('/').collect();
        let at = |wanted: &str| parts.iter().skip(2).position(|part| *part == wanted).map(|index| index + 2);
        let after_name = at("-").or_else(|| at("blob")).or_else(|| at("tree"));
        let after_name = after_name.or_else(|| at("raw")).or_else(|| at("edit"));
        let after_name = after_name.or_else(|| at("src").filter(|index| *index == 2)).unwrap_or(parts.len());
        let name = (*parts.get(after_name.checked_sub(1)?)?).to_owned();
        let owner = parts[..after_name - 1].join("/");
        let type_index = if parts.get(after_name) == Some(&"-") { after_name + 1 } else { after_name };
        let is_file = parts.len() > type_index + 1 && PATH_TYPES.contains(&parts[type_index]);
        let part =
            |index: usize| parts.get(index).filter(|_| is_file).map_or_else(String::new, |part| (*part).to_owned());
        Some(GitUrl {
            resource: url.host_str()?.to_owned(),
            owner,
            name,
            path_type: part(type_index),
            branch: part(type_index + 1),
            file_path: if is_file { parts[type_index + 2..].join("/") } else { String::new() },
        })
    }

    /// Whether it names a file of a repository.
    fn is_file(&self) -> bool {
        !self.owner.is_empty() && !self.name.is_empty() && !self.file_path.is_empty()
    }
}

/// Whether the two URLs name files of two different repositories (Backstage's `assertSameRepository`); what cannot be told is no.
pub(crate) fn other_repository(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (GitUrl::parse(one), GitUrl::parse(other)) else {
        return false;
    };
    let is_same = one.resource == other.resource && one.owner == other.owner && one.name == other.name;
    one.is_file() && other.is_file() && !is_same
}

/// A URL as seen from a base (Backstage's `resolveUrl` of integrations): an absolute one as it is; one that begins with `/` from the root of the base's
/// repository; the query of the base stays; from a file on GitHub, a `tree` in place of a `blob`. None: `TypeError: Invalid URL`.
pub(crate) fn resolve_url(url: &str, base: &str) -> Option<String> {
    let resolved = resolve(url, base)?;
    Some(if scm::is_on_github(base) { scm::with_github_type(&resolved, "tree") } else { resolved })
}

fn resolve(url: &str, base: &str) -> Option<String> {
    if Url::parse(url).is_ok() {
        return Some(url.to_owned());
    }
    if let Some(resolved) = scm::resolve_azure(url, base) {
        return Some(resolved);
    }
    let base_url = Url::parse(base).ok()?;
    let mut resolved = match url.starts_with('/') {
        true => {
            let file_path = GitUrl::parse(base).map(|git| git.file_path).unwrap_or_default();
            let path = base_url.path();
            let root = path.get(..path.len().saturating_sub(file_path.len())).unwrap_or(path).trim_end_matches('/');
            let mut resolved = base_url.clone();
            resolved.set_path(&format!("{root}{url}"));
            resolved
        }
        false => base_url.join(url).ok()?,
    };
    resolved.set_query(base_url.query());
    Some(resolved.into())
}

/// Where the raw content of a file is asked for, by an API below `api`; the URL itself at a plain host.
///
/// # Errors
/// One sentence: the URL names no file of a repository of that kind, or climbs out of it.
pub fn raw_url(url: &str, kind: HostKind, api: &str) -> Result<String, String> {
    let refused = |what: &str| format!("Incorrect URL: {url}, {what}");
    let api = api.trim_end_matches('/');
    match kind {
        HostKind::Plain => Ok(url.to_owned()),
        HostKind::Azure => azure_raw_url(url, api)
            .ok_or_else(|| refused("expected <organization>/<project>/_git/<repository>?path=<file>")),
        HostKind::GitLab => {
            gitlab_raw_url(url, api).ok_or_else(|| refused("expected <project>/-/blob/<branch>/<file>"))
        }
        HostKind::GitHub | HostKind::GitHubRaw | HostKind::Bitbucket => {
            let types: &[&str] = if kind == HostKind::Bitbucket { &["src", "raw"] } else { &["blob", "raw", "tree"] };
            let git = GitUrl::parse(url).filter(|git| git.is_file() && types.contains(&git.path_type.as_str()));
            let git = git.ok_or_else(|| refused("expected <owner>/<repository>/<type>/<branch>/<file>"))?;
            if [&git.owner, &git.name, &git.branch, &git.file_path].into_iter().any(|part| climbs(part)) {
                return Err(refused("path traversal is not allowed in the URL"));
            }
            let (owner, name, branch) = (escaped(&git.owner), escaped(&git.name), escaped(&git.branch));
            let file: Vec<String> = git.file_path.split('/').map(escaped).collect();
            let file = file.join("/");
            Ok(match kind {
                HostKind::GitHub => format!("{api}/repos/{owner}/{name}/contents/{file}?ref={branch}"),
                HostKind::GitHubRaw => format!("{api}/{owner}/{name}/{branch}/{file}"),
                _ => format!("{api}/repositories/{owner}/{name}/src/{branch}/{file}"),
            })
        }
    }
}

fn gitlab_raw_url(url: &str, api: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let (project, rest) = parsed.path().split_once("/-/blob/").or_else(|| parsed.path().split_once("/blob/"))?;
    let (branch, file) = rest.split_once('/')?;
    let (project, branch, file) = (project.trim_matches('/'), scm::percent_decoded(branch), scm::percent_decoded(file));
    let is_complete = !project.is_empty() && !branch.is_empty() && !file.is_empty();
    let escapes = [project, &branch, &file].into_iter().any(climbs);
    (is_complete && !escapes).then(|| {
        let project = escaped(&scm::percent_decoded(project));
        format!("{api}/projects/{project}/repository/files/{}/raw?ref={}", escaped(&file), escaped(&branch))
    })
}

fn azure_raw_url(url: &str, api: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let parts: Vec<String> = parsed.path().split('/').map(scm::percent_decoded).collect();
    let git = (2..=4).find(|index| parts.get(*index).is_some_and(|part| part == "_git"))?;
    let repository = parts.get(git + 1).filter(|name| !name.is_empty())?;
    // Without a project of its own the repository's name is the project's.
    let project = if git == 2 { repository } else { &parts[git - 1] };
    let organization = if git == 4 { parts[1..3].join("/") } else { parts[1].clone() };
    let query = |wanted: &str| parsed.query_pairs().find(|(key, _)| key == wanted).map(|(_, value)| value.into_owned());
    let path = query("path").filter(|path| !path.is_empty() && !climbs(path))?;
    if organization.is_empty()
        || project.is_empty()
        || [&organization, project, repository].into_iter().any(|part| climbs(part))
    {
        return None;
    }
    let version = match query("version").filter(|version| !version.is_empty()) {
        None => String::new(),
        Some(version) => {
            let branch = version.strip_prefix("GB").or_else(|| version.strip_prefix("GT"))?;
            format!("&version={}", escaped(branch))
        }
    };
    let (organization, project, repository) = (escaped(&organization), escaped(project), escaped(repository));
    Some(format!(
        "{api}/{organization}/{project}/_apis/git/repositories/{repository}/items?api-version=6.0&path={}{version}",
        escaped(&path)
    ))
}

/// Whether a path holds `.` or `..`, however often it is escaped.
fn climbs(path: &str) -> bool {
    let mut path = path.to_owned();
    loop {
        if path.split(['/', '\\']).any(|part| part == "." || part == "..") {
            return true;
        }
        let decoded = scm::percent_decoded(&path);
        if decoded == path {
            return false;
        }
        path = decoded;
    }
}

/// `encodeURIComponent` of JavaScript.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_resolved(url: &str, base: &str, expected: Option<&str>) {
        assert_eq!(resolve_url(url, base).as_deref(), expected, "{url} from {base}");
    }

    #[test]
    fn resolved() {
        let blob = "https://github.com/a/b/blob/main/dir/c.yaml";
        check_resolved("./d.txt", blob, Some("https://github.com/a/b/tree/main/dir/d.txt"));
        check_resolved("d.txt", blob, Some("https://github.com/a/b/tree/main/dir/d.txt"));
        check_resolved("../d.txt", blob, Some("https://github.com/a/b/tree/main/d.txt"));
        check_resolved("/d.txt", blob, Some("https://github.com/a/b/tree/main/d.txt"));
        check_resolved("https://x.example/y", blob, Some("https://x.example/y"));
        check_resolved("https://github.com/x/y/blob/m/c", blob, Some("https://github.com/x/y/tree/m/c"));
        check_resolved(
            "https://github.com/x/y/blob/m/c",
            "https://h.example/a",
            Some("https://github.com/x/y/blob/m/c"),
        );
        check_resolved("/d", "https://github.com/a/b/edit/main/dir/c.yaml", Some("https://github.com/a/b/tree/main/d"));
        check_resolved("./d", "https://github.com/a/b/raw/main/c.yaml", Some("https://github.com/a/b/raw/main/d"));
        check_resolved(
            "/d.txt",
            "https://gitlab.com/a/b/-/blob/m/e/c.yaml",
            Some("https://gitlab.com/a/b/-/blob/m/d.txt"),
        );
        check_resolved("./d", "https://h.example/a?x=1#f", Some("https://h.example/d?x=1"));
        check_resolved("./d.txt", "/srv/a.yaml", None);
        check_resolved("./d.txt", "catalog.events.p1", None);
        check_resolved(
            "./d.txt",
            "https://dev.azure.com/o/p/_git/r?path=%2Fdir%2Fc.yaml&version=GBmain",
            Some("https://dev.azure.com/o/p/_git/r?path=%2Fdir%2Fd.txt&version=GBmain"),
        );
        check_resolved(
            "/d.txt",
            "https://dev.azure.com/o/p/_git/r?path=%2Fdir%2Fc.yaml",
            Some("https://dev.azure.com/o/p/_git/r?path=%2Fd.txt"),
        );
    }

    #[test]
    fn repositories() {
        let blob = "https://github.com/a/b/blob/main/c.yaml";
        assert!(!other_repository("https://github.com/a/b/blob/other/d.yaml", blob));
        assert!(other_repository("https://github.com/a/c/blob/main/d.yaml", blob));
        assert!(other_repository("https://gitlab.com/a/b/-/blob/main/d.yaml", blob));
        assert!(!other_repository("https://plain.example/d.yaml", blob));
        assert!(!other_repository("https://github.com/a/c/blob/main/d.yaml", "/srv/a.yaml"));
    }

    fn check_raw(kind: HostKind, url: &str, expected: Result<&str, &str>) {
        match (raw_url(url, kind, "https://api.example/v"), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, format!("https://api.example/v{expected}"), "{url}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{url}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn raw() {
        use HostKind::{Azure, Bitbucket, GitHub, GitLab};
        check_raw(GitHub, "https://github.com/a/b/blob/main/d/c.yaml", Ok("/repos/a/b/contents/d/c.yaml?ref=main"));
        check_raw(GitHub, "https://github.com/a/b/tree/v1/c%20d.yaml", Ok("/repos/a/b/contents/c%20d.yaml?ref=v1"));
        check_raw(GitHub, "https://github.com/a/b", Err("expected <owner>"));
        check_raw(GitHub, "https://github.com/a/b/blob/main/%252e%252e/c", Err("path traversal"));
        check_raw(
            GitLab,
            "https://gitlab.com/g/s/p/-/blob/main/d/c.yaml",
            Ok("/projects/g%2Fs%2Fp/repository/files/d%2Fc.yaml/raw?ref=main"),
        );
        check_raw(
            GitLab,
            "https://gitlab.com/g/p/blob/a%2Fb/c.yaml",
            Ok("/projects/g%2Fp/repository/files/c.yaml/raw?ref=a%2Fb"),
        );
        check_raw(GitLab, "https://gitlab.com/g/p/-/tree/main/d", Err("expected <project>"));
        check_raw(Bitbucket, "https://bitbucket.org/w/r/src/main/c.yaml", Ok("/repositories/w/r/src/main/c.yaml"));
        check_raw(Bitbucket, "https://bitbucket.org/w/r/browse/c.yaml", Err("expected <owner>"));
        check_raw(
            Azure,
            "https://dev.azure.com/o/p/_git/r?path=%2Fc.yaml&version=GBmain",
            Ok("/o/p/_apis/git/repositories/r/items?api-version=6.0&path=%2Fc.yaml&version=main"),
        );
        check_raw(
            Azure,
            "https://dev.azure.com/o/_git/r?path=%2Fc.yaml",
            Ok("/o/r/_apis/git/repositories/r/items?api-version=6.0&path=%2Fc.yaml"),
        );
        check_raw(Azure, "https://dev.azure.com/o/p/_git/r?path=%2Fc&version=GCabc", Err("expected <organization>"));
        check_raw(Azure, "https://dev.azure.com/o/p/_git/r", Err("expected <organization>"));
        assert_eq!(raw_url("https://x.example/c", HostKind::Plain, "").as_deref(), Ok("https://x.example/c"));
    }

    proptest! {
        #[test]
        fn no_url_is_too_odd(url in "(https://[a-z.:0-9]{0,9}/)?.{0,40}", base in "(https://[a-z.]{0,9}/)?[a-z/._?=&%-]{0,40}") {
            let _ = resolve_url(&url, &base);
            let _ = other_repository(&url, &base);
            for kind in [HostKind::GitHub, HostKind::GitLab, HostKind::Bitbucket, HostKind::Azure] {
                let _ = raw_url(&url, kind, "https://api.example");
            }
        }
    }
}
