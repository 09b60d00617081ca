//! The database: tenants, tokens, credentials (sealed), grants, packages, idempotency.
