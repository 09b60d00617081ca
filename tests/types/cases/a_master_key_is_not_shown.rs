// P7: the key to everything can be used, and not be printed or copied.

use keybearer_strongbox::MasterKey;

fn print(key: &MasterKey) -> String {
    format!("{key:?}")
}

fn copy(key: &MasterKey) -> MasterKey {
    key.clone()
}

fn main() {}
