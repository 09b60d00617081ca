//! A compiled package, ready to be instantiated: linked, its exports found and type-checked. What can be
//! done once is done here and not on a call.

use std::sync::Arc;

use keybearer_contract::Digest;
use keybearer_contract::Wasi;
use parking_lot::Mutex;
use wasmtime::component::Component;
use wasmtime::component::HasSelf;
use wasmtime::component::Linker;

use crate::bindings::Guest;
use crate::bindings::GuestPre;
use crate::log::LogBook;
use crate::refused::ComponentRefused;
use crate::state::State;
use crate::wasi;
use crate::wasi::WasiParts;

/// A compiled package. Cheap to share; holds nothing of any call.
pub struct Tool {
    digest: Digest,
    pre: GuestPre<State>,
    /// What it asked of WASI; none if it imports nothing of it.
    grant: Option<Wasi>,
}

impl Tool {
    /// Links a component that was looked over.
    ///
    /// # Errors
    /// [`ComponentRefused`] if an import or an export is of another type than the world says.
    pub(crate) fn link(digest: Digest, component: &Component, grant: Option<Wasi>) -> Result<Self, ComponentRefused> {
        let refused = |error: wasmtime::Error| ComponentRefused::of(&error);
        let mut linker = Linker::<State>::new(component.engine());
        Guest::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state).map_err(refused)?;
        if let Some(asked) = &grant {
            wasi::link(&mut linker, component, asked).map_err(refused)?;
        }
        let pre = linker.instantiate_pre(component).map_err(refused)?;
        let pre = GuestPre::new(pre).map_err(refused)?;
        Ok(Self { digest, pre, grant })
    }

    /// Which package it is.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn pre(&self) -> &GuestPre<State> {
        &self.pre
    }

    /// What a fresh instance of it has of WASI.
    pub(crate) fn wasi(&self, handles_max: u64, log: &Arc<Mutex<LogBook>>) -> Option<Box<WasiParts>> {
        self.grant.as_ref().map(|asked| Box::new(WasiParts::new(asked, handles_max, log)))
    }
}
