//! Numbers about calls and dispatches, for metrics. Counts only: nothing here names a tenant, a host or
//! a tool, so nothing secret and nothing unbounded can become a label.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use keybearer_contract::Code;

/// What has been counted since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that ended with a result.
    pub calls_succeeded: u64,
    /// Calls that ended with a problem, by its code.
    pub calls_failed: Vec<(Code, u64)>,
    /// Outbound requests that were answered.
    pub dispatches_answered: u64,
    /// Outbound requests and signatures that were refused before anything was sent or signed.
    pub dispatches_refused: u64,
    /// Signatures that were made for guests.
    pub signatures: u64,
    /// Values of credentials that upstreams sent back and that were taken out.
    pub reflected: u64,
    /// Calls running now.
    pub calls_running: u64,
    /// Notices that wait to be taken.
    pub notices_waiting: u64,
    /// Notices that were taken.
    pub notices_delivered: u64,
    /// Tries of notices that came to nothing and were put off.
    pub notices_put_off: u64,
    /// Notices that were given up.
    pub notices_failed: u64,
}

pub(crate) struct Counting {
    succeeded: AtomicU64,
    failed: Vec<AtomicU64>,
    answered: AtomicU64,
    refused: AtomicU64,
    signed: AtomicU64,
    reflected: AtomicU64,
}

impl Default for Counting {
    fn default() -> Self {
        Self {
            succeeded: AtomicU64::default(),
            failed: Code::ALL.iter().map(|_| AtomicU64::default()).collect(),
            answered: AtomicU64::default(),
            refused: AtomicU64::default(),
            signed: AtomicU64::default(),
            reflected: AtomicU64::default(),
        }
    }
}

impl Counting {
    pub(crate) fn call_ended(&self, problem: Option<Code>) {
        let counter = match problem {
            None => &self.succeeded,
            Some(code) => {
                let index = Code::ALL.iter().position(|other| *other == code);
                &self.failed[index.expect("ALL holds every code")]
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, reflected: u64) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.reflected.fetch_add(reflected, Ordering::Relaxed);
    }

    pub(crate) fn signed(&self) {
        self.signed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, calls_running: u64, notices: [u64; 4]) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed = Code::ALL.iter().zip(&self.failed).map(|(code, counter)| (*code, read(counter)));
        Counters {
            calls_succeeded: read(&self.succeeded),
            calls_failed: failed.collect(),
            dispatches_answered: read(&self.answered),
            dispatches_refused: read(&self.refused),
            signatures: read(&self.signed),
            reflected: read(&self.reflected),
            calls_running,
            notices_waiting: notices[0],
            notices_delivered: notices[1],
            notices_put_off: notices[2],
            notices_failed: notices[3],
        }
    }
}
