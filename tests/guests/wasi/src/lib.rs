//! Guests whose standard library imports WASI, and whose manifest asks for none of it (threats G16):
//! what do they find? Built for wasm32-wasip2; there is nothing of them elsewhere.
#![cfg(target_os = "wasi")]

mod environment;

keybearer_guest::export!(environment::clock, environment::environment, environment::leave);
