//! The lock under the use guards. It has a file of its own so that the model of them (`guards_model`) can put a
//! lock there at which it decides who goes on.

pub(crate) use parking_lot::Mutex;
