//! From the day a credential is stored to the day its tenant leaves: what onboarding asks, what the inventory
//! tells, and that nothing stays behind.

mod inventory;
mod leaving;
mod notices;
mod rotation;
mod terms;
