// P6: no answer without a receipt, and no receipt without a record.

use keybearer_contract::CallId;
use keybearer_ledger::Receipt;

fn pretend(call: CallId) -> Receipt {
    Receipt { call, seq: 0 }
}

fn main() {}
