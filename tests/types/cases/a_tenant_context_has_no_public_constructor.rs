// P2: the one way to a tenant context is a principal that enters, and the directory that knows the tenant.

use std::sync::Arc;

use keybearer_gate::Principal;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantRecord;

fn construct(principal: Principal, tenant: Arc<TenantRecord>) -> TenantContext {
    TenantContext::new(principal, tenant)
}

fn main() {}
