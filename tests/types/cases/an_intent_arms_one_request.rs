// P6: one record, one request. An intent that could be used again would hide the second one.

use keybearer_gate::Cleared;
use keybearer_ledger::Intent;
use keybearer_strongbox::Lease;
use keybearer_strongbox::place;

fn copy(intent: &Intent) -> Intent {
    intent.clone()
}

fn twice(first: Cleared, second: Cleared, intent: Intent, lease: Lease, other: Lease) {
    let _first = place(first, intent, lease);
    let _second = place(second, intent, other);
}

fn main() {}
