//! The cases, by grant.

mod client;
mod exchange;
mod refresh;
mod unauthorized;
