// P3, P8: the right to use one version on one request, and its value.

use keybearer_gate::Cleared;
use keybearer_ledger::Intent;
use keybearer_strongbox::Lease;
use keybearer_strongbox::place;

fn twice(first: Cleared, second: Cleared, intent: Intent, other: Intent, lease: Lease) {
    let _first = place(first, intent, lease);
    let _second = place(second, other, lease);
}

fn look(lease: Lease) {
    let _value = lease.value;
}

fn copy(lease: &Lease) -> Lease {
    lease.clone()
}

fn print(lease: &Lease) -> String {
    format!("{lease:?}")
}

fn main() {}
