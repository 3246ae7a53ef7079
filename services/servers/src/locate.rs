//! Finds the binaries of a server: on PATH, in the usual places, in the cache, or fetched into the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::fetch::{self, FetchError};
use crate::pins::{self, Pin};
use crate::process;
use crate::{Error, Version};

/// The oldest PostgreSQL that the catalog's schema is for.
const POSTGRES_MINIMUM: Version = Version(14, 0, 0);

/// The oldest nats-server: the first with atomic batches that are safe to rely on.
const NATS_MINIMUM: Version = Version(2, 12, 5);

/// How long a server may take to print its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// How long `apt-get` may take.
const APT_LIMIT: Duration = Duration::from_secs(300);

/// Where packages put PostgreSQL: a directory whose entries with a prefix each hold one version, and where in those the binaries are.
const POSTGRES_PLACES: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr/local/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];

const NATS_PLACES: [&str; 4] =
    ["/usr/local/bin", "/usr/sbin", "/opt/homebrew/bin", "/opt/homebrew/opt/nats-server/bin"];

/// The programs of one PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresBinaries {
    /// The directory with `postgres` and `initdb`.
    pub directory: PathBuf,
    /// Its version: 14 or newer.
    pub version: Version,
}

/// One nats-server program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsBinary {
    /// The program.
    pub path: PathBuf,
    /// Its version: 2.12.5 or newer.
    pub version: Version,
}

/// The cache directory: CALLBOARD_CACHE_DIR, else `callboard` in XDG_CACHE_HOME or `~/.cache`. For root, whose home the account
/// that PostgreSQL runs as can mostly not enter, `/var/cache/callboard`.
///
/// # Errors
/// [`Error::NoCacheDir`] when no variable says where.
pub fn cache_dir() -> Result<PathBuf, Error> {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(cache) = given("CALLBOARD_CACHE_DIR") {
        return Ok(cache);
    }
    if let Some(caches) = given("XDG_CACHE_HOME") {
        return Ok(caches.join("callboard"));
    }
    if process::effective_user() == 0 && Path::new("/var/cache").is_dir() {
        return Ok(PathBuf::from("/var/cache/callboard"));
    }
    given("HOME").map(|home| home.join(".cache/callboard")).ok_or(Error::NoCacheDir)
}

/// Finds a PostgreSQL of version 14 or newer, fetching one (14 MB) into `cache` if there is none on this machine.
///
/// # Errors
/// [`Error::Unavailable`], with the line to type, when none is to be had; [`Error::Io`] when the cache cannot be written.
pub fn locate_postgres(cache: &Path, report: &mut dyn FnMut(&str)) -> Result<PostgresBinaries, Error> {
    locate_postgres_of(None, cache, report)
}

/// Finds a nats-server of version 2.12.5 or newer, fetching one (7 MB) into `cache` if there is none on this machine.
///
/// # Errors
/// As [`locate_postgres`].
pub fn locate_nats(cache: &Path, report: &mut dyn FnMut(&str)) -> Result<NatsBinary, Error> {
    find_nats(&Search::machine(cache, NATS_PLACES.map(PathBuf::from).to_vec()), report)
}

/// As [`locate_postgres`], but of this major version only, if one is given: the data of another cannot be read.
pub(crate) fn locate_postgres_of(
    major: Option<u32>,
    cache: &Path,
    report: &mut dyn FnMut(&str),
) -> Result<PostgresBinaries, Error> {
    let need = Need {
        server: "PostgreSQL",
        programs: &["postgres", "initdb"],
        minimum: POSTGRES_MINIMUM,
        major,
        pins: pins::postgres(),
    };
    let found =
        find(&need, &Search::machine(cache, postgres_places()), report).or_else(|error| {
            match install_with_apt(&need, report) {
                true => find(&need, &Search::machine(cache, postgres_places()), report),
                false => Err(error),
            }
        })?;
    let (directory, version) = found;
    Ok(PostgresBinaries { directory, version })
}

fn find_nats(search: &Search, report: &mut dyn FnMut(&str)) -> Result<NatsBinary, Error> {
    let need = Need {
        server: "nats-server",
        programs: &["nats-server"],
        minimum: NATS_MINIMUM,
        major: None,
        pins: pins::nats().into_iter().collect(),
    };
    let (directory, version) = find(&need, search, report)?;
    let path = directory.join("nats-server");
    Ok(NatsBinary { path, version })
}

/// Where to look.
struct Search {
    path: Vec<PathBuf>,
    places: Vec<PathBuf>,
    cache: PathBuf,
    fetch: bool,
}

impl Search {
    fn machine(cache: &Path, places: Vec<PathBuf>) -> Search {
        let path = env::var_os("PATH").unwrap_or_default();
        Search { path: env::split_paths(&path).collect(), places, cache: cache.to_path_buf(), fetch: true }
    }
}

/// What is looked for.
struct Need {
    server: &'static str,
    /// The programs that must lie side by side; the first is asked for its version.
    programs: &'static [&'static str],
    minimum: Version,
    major: Option<u32>,
    pins: Vec<Pin>,
}

impl Need {
    fn accepts(&self, version: Version) -> bool {
        version >= self.minimum && self.major.is_none_or(|major| version.0 == major)
    }

    fn words(&self) -> String {
        match self.major {
            Some(major) => format!("{major} (the version that made the data)"),
            None => format!("{} or newer", self.minimum),
        }
    }
}

type Found = (PathBuf, Version);

fn find(need: &Need, search: &Search, report: &mut dyn FnMut(&str)) -> Result<Found, Error> {
    let mut passed_over = Vec::new();
    let mut consider = |candidates: Vec<Found>| {
        for (directory, version) in candidates {
            if need.accepts(version) {
                return Some((directory, version));
            }
            let (server, needed) = (need.server, need.words());
            passed_over.push(format!("{server} {version} in {}", directory.display()));
            report(&format!("passing over {server} {version} in {}: {needed} is needed", directory.display()));
        }
        None
    };
    let on_path = versions(need, &search.path);
    let mut in_places = versions(need, &search.places);
    in_places.sort_by_key(|(_, version)| std::cmp::Reverse(*version));
    if let Some(found) = consider(on_path).or_else(|| consider(in_places)) {
        return Ok(found);
    }
    let mut tried = Vec::new();
    for pin in need.pins.iter().filter(|pin| need.accepts(pin.version)) {
        match obtain(need, pin, search, report) {
            Ok(found) => return Ok(found),
            Err(FetchError::Tried(reason)) => tried.push(reason),
            Err(FetchError::Fatal(error)) => return Err(error),
        }
    }
    Err(unavailable(need, search, &passed_over, &tried))
}

/// Those of the directories that hold the server, each once, with its version; what does not run is left out.
fn versions(need: &Need, directories: &[PathBuf]) -> Vec<Found> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for directory in directories {
        let programs = need.programs.iter().map(|name| directory.join(name));
        let program = directory.join(need.programs[0]);
        let Ok(real) = fs::canonicalize(&program) else {
            continue;
        };
        if seen.contains(&real) || !programs.into_iter().all(|program| program.is_file()) {
            continue;
        }
        seen.push(real);
        if let Ok(version) = version_of(&program) {
            found.push((directory.clone(), version));
        }
    }
    found
}

fn version_of(program: &Path) -> Result<Version, String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let done = process::run(command, "", VERSION_LIMIT).map_err(|error| error.to_string())?;
    Version::parse(&done.output).filter(|_| done.success).ok_or_else(|| done.output.trim().to_owned())
}

fn obtain(need: &Need, pin: &Pin, search: &Search, report: &mut dyn FnMut(&str)) -> Result<Found, FetchError> {
    let directory = match search.fetch {
        true => fetch::binaries(pin, &search.cache, report)?,
        false => fetch::unpacked(pin, &search.cache).ok_or_else(|| FetchError::Tried("fetching is off".to_owned()))?,
    };
    match version_of(&directory.join(need.programs[0])) {
        Ok(version) => Ok((directory, version)),
        Err(reason) => {
            let title = pin.title;
            Err(FetchError::Tried(format!("{title} does not run here: {reason}")))
        }
    }
}

fn unavailable(need: &Need, search: &Search, passed_over: &[String], tried: &[String]) -> Error {
    let found = match passed_over {
        [] => String::new(),
        older => format!(" (passed over: {})", older.join(", ")),
    };
    let tried = match tried {
        [] => "no archive is known for this platform and version".to_owned(),
        reasons => reasons.join("; "),
    };
    Error::Unavailable {
        wanted: format!("{} {}", need.server, need.words()),
        cache: search.cache.clone(),
        found,
        tried,
        line: line(need, &search.cache),
    }
}

/// The line to type, for this system.
fn line(need: &Need, cache: &Path) -> String {
    let postgres = need.server == "PostgreSQL";
    let version = need.major.map(|major| major.to_string());
    if cfg!(target_os = "macos") {
        return match (postgres, version) {
            (true, version) => {
                format!("brew install postgresql@{}", version.as_deref().unwrap_or("18"))
            }
            (false, _) => "brew install nats-server".to_owned(),
        };
    }
    if postgres && Path::new("/etc/debian_version").exists() {
        let dash = version.map(|version| format!("-{version}"));
        return format!("sudo apt-get install postgresql{}", dash.unwrap_or_default());
    }
    match need.pins.first().filter(|pin| need.accepts(pin.version)) {
        Some(pin) => fetch::line(pin, cache),
        None => format!(
            "install {} {} with this system's package manager, so that it is on PATH",
            need.server,
            need.words()
        ),
    }
}

fn postgres_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for (root, prefix, below) in POSTGRES_PLACES {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let matching = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        places.extend(matching.map(|entry| entry.path().join(below)));
    }
    places
}

/// As root on Debian and its like, the last way to a PostgreSQL: the system's own package.
fn install_with_apt(need: &Need, report: &mut dyn FnMut(&str)) -> bool {
    let debian = Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists();
    if process::effective_user() != 0 || !debian {
        return false;
    }
    let dash = need.major.map(|major| format!("-{major}")).unwrap_or_default();
    let package = format!("postgresql{dash}");
    report(&format!("installing {package} with apt-get"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("/usr/bin/apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        process::run(command, "", APT_LIMIT).is_ok_and(|done| done.success)
    };
    apt(&["update", "--quiet"]) && apt(&["install", "--quiet", "--yes", "--no-install-recommends", &package])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory with a `nats-server` that prints the version.
    fn fake(root: &Path, name: &str, version: &str) -> PathBuf {
        let directory = root.join(name);
        fs::create_dir_all(&directory).unwrap();
        let program = directory.join("nats-server");
        fs::write(&program, format!("#!/bin/sh\necho 'nats-server: v{version}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    /// What is found with fake servers of these versions on PATH and in the usual places, and what is reported.
    fn look(path: &[&str], places: &[&str]) -> (Result<Version, Error>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        let make = |kind: &str, versions: &[&str]| {
            let numbered = versions.iter().enumerate();
            numbered.map(|(number, version)| fake(root.path(), &format!("{kind}{number}"), version)).collect()
        };
        let search = Search {
            path: make("path", path),
            places: make("place", places),
            cache: root.path().join("cache"),
            fetch: false,
        };
        let mut reported = Vec::new();
        let found = find_nats(&search, &mut |line| reported.push(line.to_owned()));
        (found.map(|nats| nats.version), reported)
    }

    fn check(path: &[&str], places: &[&str], expected: Option<Version>) {
        let (found, _) = look(path, places);
        assert_eq!(found.ok(), expected, "{path:?} {places:?}");
    }

    #[test]
    fn path_comes_first_then_the_newest_in_the_usual_places() {
        check(&["2.12.5"], &["2.15.1"], Some(Version(2, 12, 5)));
        check(&[], &["2.12.5", "2.15.1", "2.14.0"], Some(Version(2, 15, 1)));
        check(&["2.9.10", "2.14.0"], &[], Some(Version(2, 14, 0)));
        check(&["2.9.10"], &["2.15.1"], Some(Version(2, 15, 1)));
        check(&["2.12.4"], &[], None);
        check(&["not a version"], &[], None);
        check(&[], &[], None);
    }

    #[test]
    fn an_old_server_is_passed_over_aloud_and_named_in_the_error() {
        let (found, reported) = look(&["2.9.10"], &[]);
        assert!(reported[0].contains("2.9.10") && reported[0].contains("2.12.5"), "{reported:?}");
        let error = found.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        for part in ["nats-server 2.9.10", "2.12.5 or newer", "Type:"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn another_major_version_does_not_do_for_existing_data() {
        let need = Need {
            server: "PostgreSQL",
            programs: &["postgres", "initdb"],
            minimum: POSTGRES_MINIMUM,
            major: Some(15),
            pins: Vec::new(),
        };
        assert!(need.accepts(Version(15, 3, 0)));
        assert!(!need.accepts(Version(18, 6, 0)));
        assert!(!Need { major: None, ..need }.accepts(Version(13, 9, 0)));
    }

    #[test]
    #[ignore = "fetches 45 MB"]
    fn every_pinned_archive_of_this_platform_can_be_fetched_and_runs() {
        for pin in pins::postgres().into_iter().chain(pins::nats()) {
            let cache = tempfile::tempdir().unwrap();
            let mut report = |line: &str| eprintln!("{line}");
            let directory = fetch::binaries(&pin, cache.path(), &mut report).unwrap();
            let program = match pin.title.starts_with("PostgreSQL") {
                true => "postgres",
                false => "nats-server",
            };
            assert_eq!(version_of(&directory.join(program)), Ok(pin.version));
            assert_eq!(fetch::unpacked(&pin, cache.path()), Some(directory));
        }
    }
}
