//! Tidings: sources that tell by themselves that something changed. How each is asked to, and how what it says is
//! understood, is here; that somebody listens, and what follows from it, is the executor's. A message names things and
//! holds no value; what is in it beside those names is dropped unread.

use std::future::Future;

use bytes::Bytes;
use keybearer_gate::Cleared;
use keybearer_gate::CredentialKind;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Vessel;
use tokio::time::Instant;

use crate::MintFault;
use crate::Transport;
use crate::Wanted;
use crate::vault;
use crate::vault::VaultEvents;
use crate::way::Way;

/// The way to a source on a connection that stays open.
pub trait Listen: Transport {
    /// What is said on it.
    type Messages: Messages;

    /// Asks to be told, with what is stored and what the vessel holds.
    fn listen(
        &self,
        request: Cleared,
        selected: &Selected,
        vessel: &Vessel,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Messages, MintFault>> + Send;
}

/// Messages of a source, one after the other.
pub trait Messages: Send {
    /// The next one. Whoever stops waiting loses none.
    ///
    /// # Errors
    /// [`MintFault`]: nothing more comes.
    fn next(&mut self) -> impl Future<Output = Result<Bytes, MintFault>> + Send;
}

/// What a source tells of one credential: the shape that every kind of subscription has.
pub trait Tidings: Send {
    /// Waits until what is fetched with the credential may have changed, and says as which version, if it was told: one
    /// that is older is not used from then on. Whoever stops waiting misses nothing.
    ///
    /// # Errors
    /// [`MintFault`]: nothing more is told, and changes go unseen from now on.
    fn changed(&mut self) -> impl Future<Output = Result<Option<u64>, MintFault>> + Send;
}

/// Has the credential's source tell of changes; none for a recipe that does not ask for that.
///
/// # Errors
/// [`MintFault`]: it does not.
pub async fn subscribe<T: Listen>(
    wanted: Wanted<'_>,
    strongbox: &Strongbox,
    transport: &T,
) -> Option<Result<impl Tidings + use<T>, MintFault>> {
    match &wanted.record.kind {
        CredentialKind::VaultKv(recipe) if recipe.events => {
            let mut way = Way::new(wanted, strongbox, transport);
            let messages = vault::listen(recipe, &mut way).await;
            Some(messages.map(|messages| VaultEvents::new(recipe.clone(), messages)))
        }
        _ => None,
    }
}
