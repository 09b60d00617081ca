//! The sandbox from outside: guests that behave, guests that do not, components that are not what they
//! should be, and the child that compiles.

mod calls;
mod child;
mod components;
mod hostile;
mod support;
mod wasi;
