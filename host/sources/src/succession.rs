//! Succession: a source makes what is to be stored instead of what is, where it can; and forgets, when that
//! is in force, what was.

use keybearer_gate::CredentialKind;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Vessel;

use crate::MintFault;
use crate::Transport;
use crate::Wanted;
use crate::vault;
use crate::way::Way;

/// What is to be stored with the user (or id) that is stored already.
pub struct Successor {
    /// Holds it.
    pub vessel: Vessel,
    /// Under this name.
    pub password: &'static str,
    /// What the source knows by this is to be forgotten then.
    pub retires: Option<String>,
}

/// Unwraps the wrapping token that is stored in place of a secret. A token is good once: one that was used is
/// refused, and whoever used it has the secret.
///
/// # Errors
/// [`MintFault::Refused`] if the token was used, has ended, or wraps something else.
pub async fn unwrap(
    wanted: Wanted<'_>,
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Option<Result<Successor, MintFault>> {
    let server = vault_server(&wanted.record.kind).filter(|server| server.login.is_approle())?;
    let mut way = Way::new(wanted, strongbox, transport);
    let unwrapped = vault::unwrap(server, &mut way).await;
    Some(unwrapped.map(|()| Successor { vessel: way.into_vessel(), password: vault::SECRET_ID, retires: None }))
}

/// Has the source make a new secret; none if the recipe does not say how.
///
/// # Errors
/// [`MintFault`]; what is stored is in force as before.
pub async fn renew(
    wanted: Wanted<'_>,
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Option<Result<Successor, MintFault>> {
    let server = vault_server(&wanted.record.kind)?;
    let path = server.login.secret_ids()?;
    let mut way = Way::new(wanted, strongbox, transport);
    let made = vault::make_secret_id(server, &path, &mut way).await;
    Some(made.map(|old| Successor { vessel: way.into_vessel(), password: vault::SECRET_ID, retires: Some(old) }))
}

/// Has the source forget what a successor replaced, and so proves that the successor is good.
///
/// # Errors
/// [`MintFault`]: the source still takes it.
pub async fn retire(
    wanted: Wanted<'_>,
    reference: &str,
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Result<(), MintFault> {
    let server = vault_server(&wanted.record.kind);
    let Some((server, path)) = server.and_then(|server| Some((server, server.login.secret_ids()?))) else {
        return Ok(());
    };
    vault::destroy_secret_id(server, &path, reference, &mut Way::new(wanted, strongbox, transport)).await
}

fn vault_server(kind: &CredentialKind) -> Option<&keybearer_gate::VaultServer> {
    match kind {
        CredentialKind::VaultKv(recipe) => Some(&recipe.server),
        CredentialKind::VaultDatabase(recipe) => Some(&recipe.server),
        _ => None,
    }
}
