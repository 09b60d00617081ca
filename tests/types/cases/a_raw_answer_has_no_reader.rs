// P1: an answer may hold what was sent. Before it is scrubbed nobody reads it.

use keybearer_strongbox::Raw;
use keybearer_strongbox::Reply;

fn body(raw: Raw) -> usize {
    raw.body.len()
}

fn headers(raw: &Raw) -> usize {
    raw.headers().len()
}

fn print(raw: &Raw) -> String {
    format!("{raw:?}")
}

fn through(raw: Raw) -> Reply {
    raw.into()
}

fn main() {}
