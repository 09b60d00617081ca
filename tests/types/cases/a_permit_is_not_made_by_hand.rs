// P5: no instance without leave; and leave is given by the gate.

use std::sync::Arc;

use keybearer_gate::Facts;
use keybearer_gate::Permit;
use keybearer_gate::TenantRecord;

fn pretend(facts: Facts, tenant: Arc<TenantRecord>) -> Permit {
    Permit { facts, tenant }
}

fn main() {}
