//! What must not compile: see `tests/types.rs` and the cases beside it. Nothing else is here.
