//! What the compiling child may do from now on: use memory it can map and pipes it has, and end. Linux
//! only, as the rest of the host is.

use std::collections::BTreeMap;

use rustix::process::DumpableBehavior;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::set_dumpable_behavior;
use rustix::process::setrlimit;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompFilter;

/// Address space: the largest real components take some hundred megabytes to compile.
const MEMORY_BYTES: u64 = 2 << 30;

/// Processor time; the kernel ends the child there.
const CPU_SECONDS: u64 = 60;

/// The process cannot be confined; says which step failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unconfined(String);

/// Confines the calling process for good. Call it while it has one thread: the filter is the thread's.
///
/// # Errors
/// [`Unconfined`]; do not go on.
pub(crate) fn confine() -> Result<(), Unconfined> {
    let step = |name: &'static str| move |error: rustix::io::Errno| Unconfined(format!("{name}: {error}"));
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("dumpable"))?;
    for (resource, limit) in [
        (Resource::As, MEMORY_BYTES),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
        // Nothing more can be opened; what is open stays.
        (Resource::Nofile, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).map_err(step("limit"))?;
    }
    seccompiler::apply_filter(&filter()?).map_err(|error| Unconfined(format!("seccomp: {error}")))
}

/// Memory, the pipes that are there, time, locks, the end. What is not named fails with EPERM: no file,
/// no socket, no program, no process, no signal to anybody. An abort, which begins with a signal to
/// itself, ends it all the same.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn filter() -> Result<BpfProgram, Unconfined> {
    let failed = |error: &dyn std::fmt::Display| Unconfined(format!("seccomp: {error}"));
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let machine = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    SeccompFilter::new(rules, refusal, SeccompAction::Allow, machine)
        .and_then(TryInto::try_into)
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn behind_the_filter_there_is_no_file_no_socket_no_program() {
        // A filter is its thread's own: the test's process goes on without it.
        let refused = std::thread::spawn(|| {
            seccompiler::apply_filter(&filter().expect("a filter")).expect("applies");
            let sum: u64 = vec![1_u64; 1 << 20].iter().sum();
            assert_eq!(sum, 1 << 20, "memory is to be had");
            [
                std::fs::File::open("/etc/hostname").map(drop),
                std::fs::write("/tmp/keybearer-confined", b"x"),
                std::net::TcpListener::bind("127.0.0.1:0").map(drop),
                std::os::unix::net::UnixStream::pair().map(drop),
                std::process::Command::new("/bin/true").spawn().map(drop),
            ]
            .map(|tried| tried.map_err(|error| error.kind()))
        });
        for tried in refused.join().expect("the thread ends") {
            assert_eq!(tried, Err(ErrorKind::PermissionDenied));
        }
    }
}
