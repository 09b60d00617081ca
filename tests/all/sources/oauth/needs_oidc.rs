//! The cases, by grant.

mod client;
mod consent;
mod exchange;
mod refresh;
mod unauthorized;
