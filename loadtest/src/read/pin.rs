//! Which core a thread or a process may run on, so that client and server do not take time from each other.

/// Lets this thread, and what it starts from now on, run on one core alone; false: the system does not.
pub(crate) fn this_thread(core: usize) -> bool {
    set(0, core)
}

/// 0 is the calling thread.
fn set(thread: i32, core: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the set is a plain value that lives through the call.
        #[allow(unsafe_code)]
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut set);
            libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) == 0
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (thread, core);
        false
    }
}

/// Lets every thread of a process run on one core alone, and those that they start; false: the system does not.
pub(crate) fn process(pid: u32, core: usize) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let threads = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse::<i32>().ok());
    // Every one, also behind one that cannot be.
    threads.filter(|thread| !set(*thread, core)).count() == 0
}
