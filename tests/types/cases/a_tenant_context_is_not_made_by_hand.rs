// P2: a tenant comes from a verified principal. Whoever could write one down would be any tenant.

use std::sync::Arc;

use keybearer_gate::Principal;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantRecord;

fn pretend(principal: Principal, tenant: Arc<TenantRecord>) -> TenantContext {
    TenantContext { principal, tenant }
}

fn main() {}
