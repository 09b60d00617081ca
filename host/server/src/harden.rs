//! What the process does to itself before anything else: no core dump, no look into its memory by others
//! of the same user, and no payload in what a panic prints (threats X12, X17).

use rustix::process::DumpableBehavior;
use rustix::process::Resource;
use rustix::process::Rlimit;

/// Hardens this process. What the kernel refuses is said and not fatal: a container may forbid it.
pub(crate) fn harden() {
    std::panic::set_hook(Box::new(|panic| {
        // Never the payload: a message may hold what was being handled.
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        tracing::error!(place, "panic");
        eprintln!("keybearer: a panic at {place}: this is a bug; report the place");
    }));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, none) {
        eprintln!("keybearer: core dumps could not be turned off ({error})");
    }
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("keybearer: the process could not be made undumpable ({error})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x17_the_process_leaves_no_core_and_cannot_be_dumped() {
        harden();
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
        assert!(matches!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable)));
    }
}
