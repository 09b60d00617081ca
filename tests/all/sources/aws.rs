//! AWS as a source: Secrets Manager and STS, as moto has them, and as upstreams of the tests that look at signatures.

mod faults;
mod form;
mod identity;
mod readers;
mod roles;
mod secrets;
