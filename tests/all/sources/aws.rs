//! AWS as a source: Secrets Manager, as moto has it, and as an upstream of the tests that looks at signatures.

mod roles;
mod secrets;
