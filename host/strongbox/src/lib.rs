//! The one room that reads a secret: sealing, versions, leases, placing, scrubbing.
