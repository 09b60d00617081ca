//! The order of things: the way of a call, from permit to receipt.
