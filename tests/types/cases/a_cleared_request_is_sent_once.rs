// P3: a retry is a new dispatch: cleared anew, against the rights that hold then.

use keybearer_gate::Cleared;
use keybearer_ledger::Intent;
use keybearer_strongbox::plain;

fn copy(cleared: &Cleared) -> Cleared {
    cleared.clone()
}

fn twice(cleared: Cleared, first: Intent, second: Intent) {
    let _first = plain(cleared, first);
    let _second = plain(cleared, second);
}

fn main() {}
