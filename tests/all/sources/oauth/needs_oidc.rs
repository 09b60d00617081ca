//! The cases, by grant.

mod client;
mod consent;
mod discovery;
mod exchange;
mod faults;
mod introspection;
mod refresh;
mod registration;
mod unauthorized;
