// P8: a value that was handed in can be stored, and nothing else.

use keybearer_strongbox::SecretInput;

fn print(value: &SecretInput) -> String {
    format!("{value:?}")
}

fn show(value: &SecretInput) -> String {
    format!("{value}")
}

fn copy(value: &SecretInput) -> SecretInput {
    value.clone()
}

fn compare(value: &SecretInput, other: &SecretInput) -> bool {
    value == other
}

fn look(value: SecretInput) -> usize {
    value.0.len()
}

fn take(value: SecretInput) {
    value.into_secret();
}

fn main() {}
