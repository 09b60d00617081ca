// P2: one admission, one permit. A context that could be kept would outlive the token that made it.

use keybearer_contract::Digest;
use keybearer_contract::ToolRef;
use keybearer_gate::TenantContext;

fn twice(context: TenantContext, tool: ToolRef, package: Digest) {
    let _first = context.permit(tool.clone(), package);
    let _second = context.permit(tool, package);
}

fn main() {}
