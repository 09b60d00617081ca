//! A compiled package, ready to be instantiated: linked, its exports found and type-checked. What can be
//! done once is done here and not on a call.

use keybearer_contract::Digest;
use keybearer_contract::Wasi;
use wasmtime::component::Component;
use wasmtime::component::HasSelf;
use wasmtime::component::Linker;

use crate::bindings;
use crate::bindings::GuestPre;
use crate::refused::ComponentRefused;
use crate::state::State;

/// A compiled package. Cheap to share; holds nothing of any call.
pub struct Tool {
    digest: Digest,
    pre: GuestPre<State>,
}

impl Tool {
    /// Links a component.
    pub(crate) fn link(digest: Digest, component: &Component, _wasi: &Wasi) -> Result<Self, ComponentRefused> {
        let mut linker = Linker::<State>::new(component.engine());
        bindings::Guest::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)
            .expect("an empty linker takes the world's imports");
        let pre = linker.instantiate_pre(component).map_err(|error| ComponentRefused::of(&error))?;
        let pre = GuestPre::new(pre).map_err(|error| ComponentRefused::of(&error))?;
        Ok(Self { digest, pre })
    }

    /// Which package it is.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn pre(&self) -> &GuestPre<State> {
        &self.pre
    }
}
