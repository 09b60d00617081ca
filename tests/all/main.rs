//! Every case that drives the built server, in one binary. A test's name holds the ids of the cases
//! that it shows; the first line of each says what would go wrong in the world if it failed.

mod authority;
mod binding;
mod canary;
mod cli;
mod durability;
mod egress;
mod guests;
mod http;
mod idempotency;
mod identity;
mod incident;
mod issuers;
mod ledger;
mod lifecycle;
mod onboarding;
mod peers;
mod promises;
mod push;
mod real_upstreams;
mod runs;
mod scrubbing;
mod signing;
mod sources;
mod telemetry;
mod tenants;
mod tools;
