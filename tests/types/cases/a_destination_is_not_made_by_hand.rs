// P4: a destination is parsed, and what does not parse canonically is none.

use keybearer_contract::Host;
use keybearer_contract::Scheme;
use keybearer_gate::Destination;

fn pretend(scheme: Scheme, host: Host, port: u16) -> Destination {
    Destination { scheme, host, port }
}

fn main() {}
