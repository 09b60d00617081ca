//! Tests of scrubbing.
