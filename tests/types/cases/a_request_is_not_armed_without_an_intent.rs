// P6: recorded before effect: without the record there is nothing that can be sent.

use keybearer_gate::Cleared;
use keybearer_strongbox::Armed;
use keybearer_strongbox::Lease;
use keybearer_strongbox::place;

fn unrecorded(cleared: Cleared, lease: Lease) -> Armed {
    place(cleared, None, lease).expect("armed")
}

fn main() {}
