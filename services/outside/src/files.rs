//! Files below the directories that may be read, by a path or by a pattern; what a link leads out of is not read.

use crate::{Error, Limits};
use catalog::reading::normal_path;
use globset::{GlobBuilder, GlobMatcher};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most files that one pattern may match.
const MAX_MATCHES: usize = 1000;
/// The most directory entries that are looked at for one pattern.
const MAX_VISITED: usize = 20_000;
/// The most directories within one another below a pattern's beginning.
const MAX_DEPTH: usize = 32;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its path as the target names it.
    pub path: String,
    pub bytes: Vec<u8>,
}

/// The directories that may be read.
pub(crate) struct Roots {
    /// Each as it is given, and as it really is.
    roots: Vec<(PathBuf, PathBuf)>,
}

impl Roots {
    pub fn new(given: &[PathBuf]) -> Result<Self, Error> {
        let root = |path: &PathBuf| {
            let unusable =
                |what: &str| Error::Unusable(format!("directory {} that may be read: {what}", path.display()));
            if !path.is_absolute() {
                return Err(unusable("expected an absolute path"));
            }
            let real = path.canonicalize().map_err(|error| unusable(&error.to_string()))?;
            let given = normal_path(path.to_str().ok_or_else(|| unusable("expected UTF-8"))?);
            Ok((PathBuf::from(given), real))
        };
        Ok(Roots { roots: given.iter().map(root).collect::<Result<_, _>>()? })
    }

    /// The files of a target, sorted by path; none: there is none. All of them together have the limit of one.
    pub fn read(&self, target: &str, limits: Limits) -> Result<Vec<FoundFile>, Error> {
        // Relative to this process, which is nowhere in particular.
        if !target.starts_with('/') {
            return Ok(Vec::new());
        }
        let target = normal_path(target);
        let path = Path::new(&target);
        let pattern_at = target.split('/').position(is_pattern);
        let names_allowed = |root: &Path| match pattern_at {
            None => path.starts_with(root),
            Some(at) => fixed_part(&target, at).starts_with(root),
        };
        if !self.roots.iter().any(|(given, real)| names_allowed(given) || names_allowed(real)) {
            return Err(Error::NotAllowed(format!("file {target} is not below a directory that may be read")));
        }
        let paths = match pattern_at {
            None => vec![target],
            Some(at) => self.matches(&target, at)?,
        };
        let mut files = Vec::new();
        let mut left = limits.bytes;
        for path in paths {
            let Some(bytes) = self.read_one(&path, left, limits.bytes)? else { continue };
            left -= bytes.len();
            files.push(FoundFile { path, bytes });
        }
        Ok(files)
    }

    /// None: it is not there.
    fn read_one(&self, path: &str, left: usize, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let unreadable = |what: &str| Error::Refused(format!("file {path} could not be read, Error: {what}"));
        let found = match self.open(Path::new(path)) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Err(Error::NotAllowed(format!("file {path} leads out of the directories that may be read")));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(unreadable(&error.to_string())),
        };
        let kind = found.metadata().map_err(|error| unreadable(&error.to_string()))?.file_type();
        if !kind.is_file() {
            let what = if kind.is_dir() { "EISDIR: illegal operation on a directory, read" } else { "it is no file" };
            return Err(unreadable(what));
        }
        let mut bytes = Vec::new();
        found.take(left as u64 + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error.to_string()))?;
        if bytes.len() > left {
            return Err(Error::Refused(format!(
                "file {path} is larger than {limit} bytes, or is with the ones before it"
            )));
        }
        Ok(Some(bytes))
    }

    /// Opens what a path really leads to. None: it leads out of the roots, before or after it was opened.
    fn open(&self, path: &Path) -> std::io::Result<Option<File>> {
        let real = path.canonicalize()?;
        if !self.hold(&real) {
            return Ok(None);
        }
        // No last link is followed, and no pipe waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&real)?;
        let (opened, again) = (file.metadata()?, path.canonicalize()?);
        let found = fs::metadata(&again)?;
        let is_same = self.hold(&again) && (opened.dev(), opened.ino()) == (found.dev(), found.ino());
        Ok(is_same.then_some(file))
    }

    fn hold(&self, real: &Path) -> bool {
        self.roots.iter().any(|(_, root)| real.starts_with(root))
    }

    /// The paths that a pattern matches, sorted. A name that begins with a dot is matched only where the pattern has one too, and links to directories are
    /// not followed by `**`.
    fn matches(&self, target: &str, at: usize) -> Result<Vec<String>, Error> {
        let refused = |what: String| Error::Refused(format!("file {target} could not be read, Error: {what}"));
        let glob = GlobBuilder::new(target).literal_separator(true).build();
        let matcher = glob.map_err(|error| refused(error.to_string()))?.compile_matcher();
        let parts: Vec<&str> = target.split('/').skip(at).collect();
        let depth = if parts.contains(&"**") { MAX_DEPTH } else { parts.len() };
        let start = fixed_part(target, at);
        let mut walk = Walk { roots: self, matcher, start: &start, parts: &parts, found: Vec::new(), visited: 0 };
        walk.directory(&start, depth).map_err(refused)?;
        walk.found.sort();
        Ok(walk.found)
    }
}

struct Walk<'r> {
    roots: &'r Roots,
    matcher: GlobMatcher,
    /// The directory before the first wildcard, and the pattern's parts from there on.
    start: &'r Path,
    parts: &'r [&'r str],
    found: Vec<String>,
    visited: usize,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, depth: usize) -> Result<(), String> {
        let inside = directory.canonicalize().is_ok_and(|real| self.roots.hold(&real));
        let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
        for entry in entries.flatten().filter(|_| inside) {
            self.visited += 1;
            if self.visited > MAX_VISITED || self.found.len() >= MAX_MATCHES {
                return Err(format!("the pattern looks at more than {MAX_VISITED} files, or matches {MAX_MATCHES}"));
            }
            let name = entry.file_name();
            let names_dots = || self.parts.iter().any(|part| part.starts_with('.'));
            if name.to_str().is_none_or(|name| name.starts_with('.') && !names_dots()) {
                continue;
            }
            let path = entry.path();
            if self.matcher.is_match(&path) && self.names_its_dots(&path) {
                self.found.extend(path.to_str().map(str::to_owned));
            }
            if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.directory(&path, depth - 1)?;
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    /// Whether each name of a path that begins with a dot stands where a part of the pattern does, too; nothing that `**` stands for does.
    fn names_its_dots(&self, path: &Path) -> bool {
        let names: Vec<_> = path.strip_prefix(self.start).into_iter().flatten().collect();
        let is_any = |part: &&str| *part == "**";
        let before = self.parts.iter().position(is_any).unwrap_or(self.parts.len());
        let after = self.parts.iter().rev().position(is_any).unwrap_or(0);
        names.iter().enumerate().filter(|(_, name)| name.as_encoded_bytes().starts_with(b".")).all(|(index, _)| {
            let from_end = names.len() - index;
            let part = match () {
                () if index < before => self.parts.get(index),
                () if from_end <= after => self.parts.get(self.parts.len() - from_end),
                () => None,
            };
            part.is_some_and(|part| part.starts_with('.'))
        })
    }
}

fn is_pattern(part: &str) -> bool {
    part.contains(['*', '?', '[', '{'])
}

/// The directory before the first part with a wildcard.
fn fixed_part(target: &str, at: usize) -> PathBuf {
    let parts: Vec<&str> = target.split('/').take(at).collect();
    PathBuf::from(format!("{}/", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("d/e")).expect("directories");
        for (path, text) in [
            ("a.yaml", "a"),
            ("d/a.yaml", "da"),
            ("d/b.yaml", "db"),
            ("d/c.txt", "dc"),
            ("d/e/a.yaml", "dea"),
            ("d/.h.yaml", "h"),
        ] {
            fs::write(root.join(path), text).expect("a file");
        }
        fs::write(directory.path().join("secret"), "secret").expect("a file");
        symlink(directory.path().join("secret"), root.join("out")).expect("a link");
        symlink(directory.path(), root.join("up")).expect("a link");
        symlink(root.join("a.yaml"), root.join("in")).expect("a link");
        let text = root.to_str().expect("UTF-8").to_owned();
        (directory, text)
    }

    fn check(roots: &Roots, root: &str, target: &str, expected: Result<&[&str], &str>) {
        let limits = Limits { bytes: 100, ..Limits::default() };
        let found = roots.read(&target.replace('$', root), limits);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<String> = found
                    .into_iter()
                    .map(|file| format!("{}={}", file.path.replace(root, "$"), String::from_utf8_lossy(&file.bytes)))
                    .collect();
                assert_eq!(found, expected, "{target}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{target}: {error}"),
            (found, expected) => panic!("{target}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn files_below_the_roots_and_no_others() {
        let (_directory, root) = tree();
        let roots = Roots::new(&[PathBuf::from(&root)]).expect("usable");
        let check = |target: &str, expected: Result<&[&str], &str>| check(&roots, &root, target, expected);
        check("$/a.yaml", Ok(&["$/a.yaml=a"]));
        check("$/./d/../a.yaml", Ok(&["$/a.yaml=a"]));
        check("$/in", Ok(&["$/in=a"]));
        check("$/nothing", Ok(&[]));
        check("$/a.yaml/b", Ok(&[]));
        check("a.yaml", Ok(&[]));
        check("$/d", Err("EISDIR"));
        check("$/out", Err("NotAllowedError"));
        check("$/up/secret", Err("leads out"));
        check("$/../secret", Err("not below"));
        check("/etc/passwd", Err("not below"));
        check("/proc/self/environ", Err("not below"));
        check("$x/a", Err("not below"));
    }

    #[test]
    fn patterns() {
        let (_directory, root) = tree();
        let roots = Roots::new(&[PathBuf::from(&root)]).expect("usable");
        let check = |target: &str, expected: Result<&[&str], &str>| check(&roots, &root, target, expected);
        check("$/d/*.yaml", Ok(&["$/d/a.yaml=da", "$/d/b.yaml=db"]));
        check("$/d/{b,c}.*", Ok(&["$/d/b.yaml=db", "$/d/c.txt=dc"]));
        check("$/d/**/*.yaml", Ok(&["$/d/a.yaml=da", "$/d/b.yaml=db", "$/d/e/a.yaml=dea"]));
        check("$/*/?.txt", Ok(&["$/d/c.txt=dc"]));
        check("$/d/.*", Ok(&["$/d/.h.yaml=h"]));
        check("$/*/.h.yaml", Ok(&["$/d/.h.yaml=h"]));
        check("$/**/.h.*", Ok(&["$/d/.h.yaml=h"]));
        check("$/.*/a.yaml", Ok(&[]));
        check("$/[a-c].yaml", Ok(&["$/a.yaml=a"]));
        check("$/d/[!a].yaml", Ok(&["$/d/b.yaml=db"]));
        check("$/none/*", Ok(&[]));
        check("$/u*/secret", Ok(&[]));
        check("$/o*", Err("leads out"));
        check("$/d/[", Err("could not be read"));
        check("/*/passwd", Err("not below"));
        check("$/../*", Err("not below"));
    }

    #[test]
    fn limits() {
        let (_directory, root) = tree();
        fs::write(format!("{root}/big"), vec![b'x'; 101]).expect("a file");
        let roots = Roots::new(&[PathBuf::from(&root)]).expect("usable");
        check(&roots, &root, "$/big", Err("larger than 100 bytes"));
        fs::write(format!("{root}/d/big.yaml"), vec![b'x'; 98]).expect("a file");
        check(&roots, &root, "$/d/*.yaml", Err("larger than 100 bytes"));
        assert!(Roots::new(&[PathBuf::from("relative")]).is_err());
        assert!(Roots::new(&[PathBuf::from("/no/such/directory")]).is_err());
        let nothing = Roots::new(&[]).expect("usable");
        check(&nothing, &root, "$/a.yaml", Err("not below"));
    }
}
