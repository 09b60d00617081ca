//! Sources of credentials, each against the real server: what a guest's request carries then, what is given
//! back when, and what becomes of calls while the source is down.

mod aws;
mod oauth;
mod spiffe;
mod vault;
