// P6: an intent is proof that it is in the ledger.

use keybearer_contract::CallId;
use keybearer_contract::DispatchId;
use keybearer_ledger::Intent;

fn pretend(call: CallId, dispatch: DispatchId) -> Intent {
    Intent { call, dispatch, credential: None, version: None, epoch: None }
}

fn main() {}
