// P6: the record of an administrative act lets no call's answer out.

use keybearer_ledger::ActReceipt;
use keybearer_ledger::Receipt;

fn pretend(act: ActReceipt) -> Receipt {
    act
}

fn main() {}
