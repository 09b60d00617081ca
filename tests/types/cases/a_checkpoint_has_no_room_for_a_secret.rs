// P7, P8: a run's checkpoint is written down. What holds a secret cannot be, so it cannot become a part of one;
// and there is no field in which something else than references, names and times would fit.

use keybearer_gate::RunCheckpoint;
use keybearer_strongbox::Lease;
use keybearer_strongbox::SecretInput;

#[derive(serde::Serialize)]
struct WithValue {
    checkpoint: RunCheckpoint,
    value: SecretInput,
}

#[derive(serde::Serialize)]
struct WithLease {
    checkpoint: RunCheckpoint,
    lease: Lease,
}

fn smuggle(checkpoint: RunCheckpoint, value: SecretInput) -> RunCheckpoint {
    RunCheckpoint { agent: value, ..checkpoint }
}

fn main() {}
