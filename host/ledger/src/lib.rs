//! The append-only, hash-chained record of calls, dispatches and administrative acts.
