//! Counts the system calls of a thread while it is told to, in the thread itself: the kernel hands each one to a signal handler
//! (Syscall User Dispatch, Linux 5.11), which makes it.
#![allow(unsafe_code, reason = "a signal handler")]

use std::cell::Cell;
use std::mem::zeroed;
use std::ptr;

use libc::{c_int, c_long, c_void, siginfo_t, ucontext_t};

thread_local! {
    /// Read by the kernel at each system call.
    static SELECTOR: Cell<u8> = const { Cell::new(ALLOW) };
    static READY: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: Cell<Calls> = const { Cell::new(Calls { count: 0, last: 0 }) };
}

/// What a thread has asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    pub count: u64,
    /// Number of the last one.
    pub last: c_long,
}

/// Runs `work` and counts. None on a machine where that cannot be.
pub fn measure(work: impl FnOnce()) -> Option<Calls> {
    if !READY.get() {
        prepare()?;
        READY.set(true);
    }
    CAUGHT.set(Calls { count: 0, last: 0 });
    SELECTOR.set(BLOCK);
    work();
    SELECTOR.set(ALLOW);
    Some(CAUGHT.get())
}

/// sigaction as the kernel has it.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

fn prepare() -> Option<()> {
    // SAFETY: the handler is one of three arguments; structures are as the C library and the kernel have them, and live during
    // the calls. The selector lives as long as this thread.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = caught as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGSYS, &action, ptr::null_mut()), 0);
        let mut known = KernelAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
        let nothing = ptr::null::<c_void>();
        assert_eq!(libc::syscall(libc::SYS_rt_sigaction, libc::SIGSYS, nothing, &raw mut known, 8), 0);
        // The way back from the handler is a system call, too, from here.
        let selector = SELECTOR.with(Cell::as_ptr);
        let status = libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, known.restorer, 16usize, selector);
        (status == 0).then_some(())
    }
}

unsafe extern "C" fn caught(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    SELECTOR.set(ALLOW);
    // SAFETY: the kernel's arguments of a handler with SA_SIGINFO; the call is the one that the thread has asked for.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let number = c_long::from((*info.cast::<SysInfo>()).number);
        let [a, b, c, d, e, f] =
            [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9]
                .map(|register| registers[register as usize]);
        let result = libc::syscall(number, a, b, c, d, e, f);
        registers[libc::REG_RAX as usize] = if result == -1 { -i64::from(*libc::__errno_location()) } else { result };
        CAUGHT.set(Calls { count: CAUGHT.get().count + 1, last: number });
    }
    SELECTOR.set(BLOCK);
}

/// siginfo_t of SIGSYS.
#[repr(C)]
struct SysInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    address: *mut c_void,
    number: c_int,
}

const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
const PR_SET_SYSCALL_USER_DISPATCH: c_int = 59;
const PR_SYS_DISPATCH_ON: usize = 1;
