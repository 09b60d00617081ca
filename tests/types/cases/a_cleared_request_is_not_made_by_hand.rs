// P4: only what the gate has cleared can be armed and sent.

use keybearer_gate::Cleared;
use keybearer_gate::ClearedParts;
use keybearer_gate::Facts;

fn pretend(facts: Facts, parts: ClearedParts) -> Cleared {
    Cleared { facts, parts, attach: None }
}

fn main() {}
