//! The sandbox from outside: guests that behave, and guests that do not.

mod calls;
mod support;
