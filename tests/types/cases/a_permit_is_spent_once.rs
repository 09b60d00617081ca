// P5: one permit, one instance, one call.

use keybearer_gate::Permit;

fn twice(permit: Permit) {
    let _first = permit.spend();
    let _second = permit.spend();
}

fn main() {}
