// P1, P8: what is armed holds a credential. It can be sent, and not be looked at.

use keybearer_strongbox::Armed;

fn print(armed: &Armed) -> String {
    format!("{armed:?}")
}

fn headers(armed: &Armed) -> usize {
    armed.headers().len()
}

fn copy(armed: &Armed) -> Armed {
    armed.clone()
}

fn main() {}
