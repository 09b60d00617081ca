//! Signatures: a key signs what a tool sends, and neither the key nor what else it could sign is in the tool's hands.

mod functions;
mod proofs;
mod sigv4;
