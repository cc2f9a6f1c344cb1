//! Short turns for a thread that spins on a core where the kernel has work for it: on direct writes, for one, data ends up
//! with a worker that is bound to the core, and that waits until the spinning thread's turn is over. A turn is 3 ms unless
//! the thread asks for another length; asking costs nothing as long as nobody else wants the core.

use std::io;

/// Asks for turns of [`TURN_NS`] for the calling thread, if it has none shorter and is scheduled in the ordinary way.
/// Kernels before 6.12 have no such thing and ignore it.
pub(crate) fn shorten() -> io::Result<()> {
    let mut attr = current()?;
    let ordinary = attr.sched_policy == libc::SCHED_OTHER as u32;
    if !ordinary || (1..=TURN_NS).contains(&attr.sched_runtime) {
        return Ok(());
    }
    attr.sched_runtime = TURN_NS;
    // SAFETY: the call reads one attribute block, which lives through it; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn current() -> io::Result<libc::sched_attr> {
    // SAFETY: integers, all of which may be zero.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&attr);
    // SAFETY: the call writes at most `size` bytes of the block, which lives through it; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if result == 0 { Ok(attr) } else { Err(io::Error::last_os_error()) }
}

/// The shortest that the kernel takes.
const TURN_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_a_thread_get_short_and_nothing_else_of_it_changes() {
        std::thread::spawn(|| {
            let before = current().unwrap();
            shorten().unwrap();
            shorten().unwrap();
            let after = current().unwrap();
            let same = |attr: &libc::sched_attr| (attr.sched_policy, attr.sched_nice, attr.sched_priority);
            assert_eq!(same(&before), same(&after));
            if before.sched_runtime == 0 || before.sched_policy != libc::SCHED_OTHER as u32 {
                eprintln!("SKIPPED: this kernel, or how this thread is scheduled, has no turns to be asked for");
            } else {
                assert_eq!(after.sched_runtime, TURN_NS);
            }
        })
        .join()
        .unwrap();
    }
}
