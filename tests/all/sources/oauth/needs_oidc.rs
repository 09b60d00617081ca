//! The cases, by grant.

mod client;
mod refresh;
mod unauthorized;
