//! What processes and directories use: CPU time and memory from `/proc`, bytes on disk. Absent where there is no `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Linux's count of CPU time: 100 a second on every machine that it is built for (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time, in seconds, of all threads and of children that have ended.
    pub cpu_seconds: f64,
    /// Of one process: the most memory that it held at once. Of several: what they hold now, shared memory counted once. In bytes.
    pub memory_bytes: u64,
    /// What it holds, or they hold, now. In bytes.
    pub resident_bytes: u64,
}

/// What one process has used.
pub(crate) fn of_process(pid: u32) -> Option<Usage> {
    Some(Usage {
        cpu_seconds: stat(pid)?.cpu_seconds,
        memory_bytes: status(pid, "VmHWM")?,
        resident_bytes: status(pid, "VmRSS")?,
    })
}

/// What a process and its children have used together (PostgreSQL serves each connection by a child).
pub(crate) fn of_tree(pid: u32) -> Option<Usage> {
    let pids: Vec<u32> = std::iter::once(pid).chain(children(pid)).collect();
    let cpu_seconds = stat(pid)?.cpu_seconds
        + pids[1..].iter().filter_map(|pid| stat(*pid)).map(|stat| stat.cpu_seconds).sum::<f64>();
    let own: u64 = pids.iter().filter_map(|pid| status(*pid, "RssAnon")).sum();
    let shared = pids.iter().filter_map(|pid| status(*pid, "RssShmem")).max().unwrap_or(0);
    Some(Usage { cpu_seconds, memory_bytes: own + shared, resident_bytes: own + shared })
}

/// What a process holds in memory now, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    status(pid, "VmRSS")
}

/// The children of a process whose program has this name.
pub(crate) fn children_named(pid: u32, name: &str) -> Vec<u32> {
    let fits = |child: &u32| stat(*child).is_some_and(|stat| stat.name == name);
    children(pid).into_iter().filter(fits).collect()
}

/// Bytes that a directory takes on disk, all files below it; 0 where it is not there.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // Gone in the meantime.
        Err(_) => 0,
    };
    entries.flatten().map(of_entry).sum()
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent)).collect()
}

struct Stat {
    name: String,
    parent: u32,
    cpu_seconds: f64,
}

/// `/proc/<pid>/stat`: `pid (name) state ppid …`; the name may hold anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    // Fields 14 to 17 of the whole line: user and system time, and those of ended children.
    let ticks: Option<f64> = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        cpu_seconds: ticks? / TICKS_A_SECOND,
    })
}

/// A line of `/proc/<pid>/status`, in bytes.
fn status(pid: u32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself() {
        let me = std::process::id();
        let usage = of_process(me).unwrap();
        assert!(usage.memory_bytes > 1 << 20, "{usage:?}");
        let parent = stat(me).unwrap().parent;
        let name = stat(me).unwrap().name;
        assert!(children_named(parent, &name).contains(&me));
        assert!(of_tree(parent).is_some());
        assert_eq!(of_process(u32::MAX), None);
    }

    #[test]
    fn a_directory_is_as_large_as_its_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/b"), vec![1; 100_000]).unwrap();
        assert!(disk_bytes(directory.path()) >= 100_000);
        assert_eq!(disk_bytes(Path::new("/there/is/none")), 0);
    }
}
