// P2: a principal is what a token, a certificate or a signed claim proves, and nothing else.

use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Principal;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scopes;

fn pretend(tenant: TenantId, label: PrincipalLabel, scopes: Scopes, issued: UnixMillis) -> Principal {
    Principal { tenant, label, scopes, packages: None, issued }
}

fn main() {}
