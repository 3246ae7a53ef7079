//! Processes: started so that they end with us or outlive us, recognised, signalled and waited for.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// The most of a program's output that is kept, in bytes.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// The signals that end a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: PostgreSQL's fast shutdown.
    Interrupt,
    /// SIGTERM: nats-server's shutdown.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// How long a started process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It gets this signal when this process ends, whatever way. It does not get the terminal's Ctrl-C.
    WithParent(Signal),
    /// It is in a session of its own and lives on.
    Detached,
}

/// What a program that was run to its end left.
#[derive(Debug)]
pub struct Finished {
    /// Whether it exited with 0.
    pub success: bool,
    /// Its standard output and error, together, at most 64 KiB.
    pub output: String,
}

/// Starts a process.
pub fn spawn(mut command: Command, lifetime: Lifetime) -> io::Result<Child> {
    match lifetime {
        Lifetime::Detached => {
            own_session(&mut command);
            command.spawn()
        }
        Lifetime::WithParent(signal) => {
            command.process_group(0);
            die_with_parent(&mut command, signal);
            spawn_on_keeper(command)
        }
    }
}

/// Runs a program to its end with `input` as its standard input; past `limit` it is killed and that is an error of kind `TimedOut`.
pub fn run(mut command: Command, input: &str, limit: Duration) -> io::Result<Finished> {
    let mut stdin = tempfile::tempfile()?;
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    let mut output = tempfile::tempfile()?;
    command.stdin(stdin);
    command.stdout(output.try_clone()?);
    command.stderr(output.try_clone()?);
    let mut child = spawn(command, Lifetime::WithParent(Signal::Kill))?;
    let Some(status) = wait(&mut child, limit)? else {
        kill_group(&mut child)?;
        let text = format!("no end after {} s", limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    };
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(Finished { success: status.success(), output: String::from_utf8_lossy(&bytes).into_owned() })
}

/// Waits for a child's end, at most `limit`; `None` if it still runs.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let mut status = child.try_wait()?;
    poll_until::<io::Error>(limit, || {
        if status.is_none() {
            status = child.try_wait()?;
        }
        Ok(status.is_some())
    })?;
    Ok(status)
}

/// Asks `done` again and again, with growing pauses of 2 to 20 ms, until it says yes or `limit` has passed; says which.
pub fn poll_until<E>(limit: Duration, mut done: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if done()? {
            return Ok(true);
        }
        if start.elapsed() >= limit {
            return Ok(false);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Says how a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Whether process `pid` runs and its command line holds `marker` (so that a number that was given to another process is not taken
/// for ours). A zombie does not run.
pub fn runs(pid: u32, marker: &str) -> bool {
    command_line(pid).is_some_and(|line| line.contains(marker))
}

/// When process `pid` was started, in the system's own count, in `[A-Za-z0-9_]`; `None` when there is no such process. With the
/// pid it names a process for good.
pub fn birth(pid: u32) -> Option<String> {
    if !cfg!(target_os = "linux") {
        let words = ps_of(pid, "lstart=")?;
        let joined = words.split_whitespace().collect::<Vec<_>>().join("_");
        return Some(joined.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// The parent of process `pid` and the name of the program it runs.
pub fn parent_and_name(pid: u32) -> Option<(u32, String)> {
    if !cfg!(target_os = "linux") {
        return Some((ps_of(pid, "ppid=")?.parse().ok()?, file_name(&ps_of(pid, "comm=")?)));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (front, back) = stat.rsplit_once(") ")?;
    let parent = back.split(' ').nth(1)?.parse().ok()?;
    Some((parent, front.split_once('(')?.1.to_owned()))
}

/// The user this process acts as.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
    #[allow(unsafe_code)]
    unsafe {
        libc::geteuid()
    }
}

/// Sends a signal to one process; one that is gone already is no error.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    kill(i64::from(pid), signal)
}

/// Stops a process that is not our child: the signal, at most `limit` of patience, then SIGKILL. Does nothing to a process without `marker`.
pub fn stop_stranger(pid: u32, marker: &str, signal: Signal, limit: Duration) -> io::Result<()> {
    if !runs(pid, marker) {
        return Ok(());
    }
    send(pid, signal)?;
    if poll_until::<io::Error>(limit, || Ok(!runs(pid, marker)))? {
        return Ok(());
    }
    send(pid, Signal::Kill)?;
    poll_until::<io::Error>(limit, || Ok(!runs(pid, marker)))?;
    Ok(())
}

/// Waits for a child that was signalled before, at most `limit`, then kills it.
pub fn finish(child: &mut Child, limit: Duration) -> io::Result<()> {
    if wait(child, limit)?.is_none() {
        kill_group(child)?;
    }
    Ok(())
}

/// Opens a log for a server to append to. Above 16 MiB it is put aside first, as `<name>.1`.
pub fn open_log(path: &std::path::Path) -> io::Result<File> {
    const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
    if std::fs::metadata(path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
        std::fs::rename(path, path.with_added_extension("1"))?;
    }
    File::options().create(true).append(true).open(path)
}

/// Gives a command a log as its output, and no input.
pub fn output_to(command: &mut Command, log: File) -> io::Result<()> {
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(())
}

fn kill_group(child: &mut Child) -> io::Result<()> {
    kill(-i64::from(child.id()), Signal::Kill)?;
    child.wait()?;
    Ok(())
}

fn kill(target: i64, signal: Signal) -> io::Result<()> {
    let target = libc::pid_t::try_from(target).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers and touches no memory of ours.
    #[allow(unsafe_code)]
    let result = unsafe { libc::kill(target, number(signal)) };
    let error = io::Error::last_os_error();
    if result == 0 || error.raw_os_error() == Some(libc::ESRCH) {
        return Ok(());
    }
    Err(error)
}

fn number(signal: Signal) -> libc::c_int {
    match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
    }
}

/// The processes whose command line holds `marker`. Costs a look at every process of the machine.
pub fn find(marker: &str) -> io::Result<Vec<u32>> {
    if !cfg!(target_os = "linux") {
        let lines = ps(&["-A", "-o", "pid=", "-o", "command="]).unwrap_or_default();
        let of_line =
            |line: &str| line.contains(marker).then(|| line.split_whitespace().next()?.parse().ok()).flatten();
        return Ok(lines.lines().filter_map(of_line).collect());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(pid.filter(|pid| runs(*pid, marker)));
    }
    Ok(found)
}

fn command_line(pid: u32) -> Option<String> {
    if !cfg!(target_os = "linux") {
        return ps_of(pid, "command=");
    }
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

fn ps_of(pid: u32, column: &str) -> Option<String> {
    ps(&["-o", column, "-p", &pid.to_string()])
}

/// Asks `ps`, where there is no /proc. Must not go through `run`: it is called where no process may be kept waiting.
fn ps(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("ps");
    command.env("LC_ALL", "C").args(arguments);
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn own_session(command: &mut Command) {
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = std::process::id();
    let signal = number(signal);
    // SAFETY: between fork and exec only prctl and getppid are called, which are async-signal-safe and allocate nothing.
    // The standard library has changed the user before this runs, so that change does not clear the setting.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == -1 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before the line above: then no signal will ever come.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            Ok(())
        });
    }
}

/// Elsewhere the guard script does it (see `guard`).
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command, _: Signal) {}

type Job = (Command, Sender<io::Result<Child>>);

/// Linux sends the death signal when the *thread* that forked ends, so all such children are forked by one thread that ends
/// with the process only.
fn spawn_on_keeper(command: Command) -> io::Result<Child> {
    static KEEPER: Mutex<Option<Sender<Job>>> = Mutex::new(None);
    let (answer, child) = mpsc::channel();
    let mut keeper = KEEPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let jobs = match keeper.take() {
        Some(jobs) => jobs,
        None => start_keeper()?,
    };
    let sent = jobs.send((command, answer));
    *keeper = Some(jobs);
    drop(keeper);
    sent.map_err(|_| io::Error::other("the thread that starts processes has ended"))?;
    child.recv().map_err(io::Error::other)?
}

fn start_keeper() -> io::Result<Sender<Job>> {
    let (jobs, work) = mpsc::channel::<Job>();
    let keep = move || {
        for (mut command, answer) in work {
            // Whoever asked is gone only if its thread panicked: then nobody waits for this child.
            if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                drop(child.kill());
            }
        }
    };
    thread::Builder::new().name("server-keeper".to_owned()).spawn(keep)?;
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn run_gives_output_and_outcome() {
        let done = run(sh("cat; echo b >&2"), "a\n", Duration::from_secs(20)).unwrap();
        assert_eq!((done.success, done.output.as_str()), (true, "a\nb\n"));
        assert!(!run(sh("exit 3"), "", Duration::from_secs(20)).unwrap().success);
    }

    #[test]
    fn run_is_bounded_in_time() {
        let error = run(sh("sleep 1000"), "", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_process_is_recognised_by_its_command_line_and_birth() {
        let me = std::process::id();
        assert!(birth(me).is_some());
        assert_eq!(birth(me), birth(me));
        assert!(!runs(me, "no such words"));
        let mine = command_line(me).unwrap();
        assert!(find(&mine).unwrap().contains(&me));
        assert!(!find("no such words").unwrap().contains(&me));
        let (parent, name) = parent_and_name(me).unwrap();
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert!(!name.is_empty());
        let mut child = sh("exit 0").spawn().unwrap();
        poll_until::<io::Error>(Duration::from_secs(20), || Ok(birth(child.id()).is_none())).unwrap();
        assert!(!runs(child.id(), "sh"), "a zombie does not run");
        child.wait().unwrap();
    }
}
