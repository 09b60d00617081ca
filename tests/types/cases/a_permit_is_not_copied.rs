// P5: a permit that could be copied could be spent twice.

use keybearer_gate::Permit;

fn copy(permit: &Permit) -> Permit {
    permit.clone()
}

fn main() {}
