//! The one place where compiled code is taken for code. Bytes come here from two hands only: from the
//! compiler just now, or from the cache with a MAC that held over these very bytes. Nobody outside of
//! this room can bring any (threats W14).

#![expect(unsafe_code, reason = "wasmtime can only be told, not shown, that bytes are its own compiler's")]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Compiled code of which somebody in this room has vouched that our compiler made it. Made by the
/// compiler's and the cache's own files; there is no way to make one from outside.
pub(crate) struct Vouched(Vec<u8>);

impl Vouched {
    /// Vouches. Call it on the compiler's output, or once a MAC over these bytes held; nowhere else.
    pub(crate) fn on_my_word(code: Vec<u8>) -> Self {
        Self(code)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Loads compiled code.
///
/// # Errors
/// wasmtime's own: it is of another version or of an engine with other settings, or asks for more
/// than the pool holds.
pub(crate) fn load(engine: &Engine, code: &Vouched) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` trusts its bytes to be the unmodified output of `Engine::precompile_component`.
    // A `Vouched` is made in two places: from that very output (in this process, or in a child of ours that
    // holds no other input than one component), and from a cache entry after its keyed MAC over these same
    // bytes, in memory, held. They are copied from here, so that nothing can change them in between.
    unsafe { Component::deserialize(engine, &code.0) }
}
