//! Tenants beside each other: whose credential is used, who finds what, and who waits for whom.

mod confusion;
mod fairness;
mod rows;
mod sharing;
