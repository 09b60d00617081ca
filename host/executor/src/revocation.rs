//! Revocation: what is common to revoking anything. The store has the act before anything is cut, so that
//! nothing new begins; then what runs is cut and waited for; then the act is recorded; then it is
//! acknowledged, with how much was found of each.

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;

use crate::Executor;
use crate::Revoked;

impl Executor {
    /// Cuts off what carries a credential of an epoch before this one, and waits until nothing of it can be
    /// sent any more. The store has the epoch already.
    pub(crate) async fn cut_credential(&self, tenant: &TenantId, id: &CredentialId, epoch: u64) -> Revoked {
        let dispatches_cancelled = self.strongbox.barrier_revoke(tenant, id, epoch).await;
        Revoked {
            what: "credential".to_owned(),
            id: id.to_string(),
            epoch: Some(epoch),
            dispatches_cancelled,
            connections_closed: self.egress.close_connections(tenant, id),
            ..Revoked::default()
        }
    }

    /// Forgets what was minted with a credential at an epoch before this one, has the issuers revoke it, and says
    /// how many they did: part of the act that raised the epoch, before it is acknowledged.
    pub(crate) async fn undo_minted(&self, tenant: &TenantId, id: &CredentialId, epoch: u64) -> u64 {
        self.give_back(self.strongbox.end_minted(tenant, id, epoch)).await
    }
}
