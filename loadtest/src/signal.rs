//! Signals to our own children, and children that end when we do.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM: finish or give back what you hold, and end.
    Terminate,
    /// SIGSTOP: do nothing, whatever you hold.
    Stop,
    /// SIGCONT: go on.
    Continue,
}

/// Sends a signal to a child that has not been waited for, so that its number cannot be another's.
pub(crate) fn send(child: &Child, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let number = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    };
    // SAFETY: kill takes two integers and touches no memory of ours.
    #[allow(unsafe_code)]
    let result = unsafe { libc::kill(pid, number) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has a command's process killed by the system when this one ends, whatever way; and keeps the terminal's Ctrl-C from it, since we
/// stop it ourselves. To be spawned from the main thread: the system means the thread's end, and that one ends last.
pub(crate) fn end_with_us(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: between fork and exec only prctl and getppid are called, which are async-signal-safe and allocate nothing.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                    return Err(io::Error::last_os_error());
                }
                // We may have ended before the line above: then no signal will ever come.
                match u32::try_from(libc::getppid()) == Ok(parent) {
                    true => Ok(()),
                    false => Err(io::ErrorKind::NotConnected.into()),
                }
            });
        }
    }
}
