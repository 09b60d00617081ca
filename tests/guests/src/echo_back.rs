//! Gives back everything that the import answered, masked, so that a test sees every byte that a guest
//! saw (oracle O1).

use keybearer_guest::prelude::*;

use crate::mask::mask;
use crate::wire;
use crate::wire::Said;

/// What was heard.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Out {
    /// A status, or who is at fault.
    outcome: String,
    /// Every byte that the import answered: each turned by 0x5a, as hex.
    masked: String,
}

// Shown by: outbound::o1_no_byte_of_a_credential_reaches_a_guest
/// Sends a request and gives back all that it heard.
#[tool]
pub(crate) fn echo_back(args: Said) -> Result<Out, ToolError> {
    let heard = wire::send(args)?;
    Ok(Out { outcome: wire::outcome(&heard), masked: mask(&wire::everything(&heard)) })
}
