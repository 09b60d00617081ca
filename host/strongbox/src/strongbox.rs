//! The strongbox itself: master key, guards, minted tokens and scrub sets under one roof, and the
//! operations on what a tenant stores. Selecting and leasing are in `lease`, minted tokens in `minted`.

use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_gate::CredentialDirectory;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Ingredient;
use keybearer_gate::Sealed;
use keybearer_gate::StoredForm;
use keybearer_gate::VersionState;
use parking_lot::RwLock;
use zeroize::Zeroizing;

use crate::Accepted;
use crate::MasterKey;
use crate::MasterKeyRefused;
use crate::SealBroken;
use crate::SecretInput;
use crate::Selected;
use crate::Undo;
use crate::ValueRefused;
use crate::Vessel;
use crate::accept;
use crate::carry;
use crate::guards::GuardKey;
use crate::guards::Guards;
use crate::keys::TenantKeys;
use crate::keys::Use;
use crate::master::random_key;
use crate::minted::MintedTokens;
use crate::scrub::ScrubSets;
use crate::seal;
use crate::seal::SealingKey;
use crate::secret::Secret;
use crate::svid::Svids;

/// The room. One a process; shared by reference.
pub struct Strongbox {
    master: RwLock<Arc<MasterKey>>,
    directory: Arc<dyn CredentialDirectory>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) minted: MintedTokens,
    pub(crate) svids: Svids,
    pub(crate) scrub_sets: ScrubSets,
    pub(crate) keys: TenantKeys,
}

/// A tenant's values and everything else of its have keys of their own.
const VALUES: &str = "keybearer 2026-11 tenant key: credential values";
const DIGESTS: &str = "keybearer 2026-11 tenant key: digests of what was signed";
const ANSWERS: &str = "keybearer 2026-11 tenant key: everything else";

impl Strongbox {
    /// A strongbox over these records.
    #[must_use]
    pub fn new(master: MasterKey, directory: Arc<dyn CredentialDirectory>) -> Self {
        Self {
            master: RwLock::new(Arc::new(master)),
            directory,
            guards: Guards::new(),
            minted: MintedTokens::default(),
            svids: Svids::default(),
            scrub_sets: ScrubSets::default(),
            keys: TenantKeys::default(),
        }
    }

    /// Begins to rotate the master key, or takes up a rotation that was cut off. From now on new wrapping
    /// is done by the new key, and both open. Next: [`Self::rewrap`] every tenant's data key and store it,
    /// then [`Self::finish_master_rotation`].
    ///
    /// # Errors
    /// [`MasterKeyRefused`]; the old key holds.
    pub fn begin_master_rotation(&self) -> Result<(), MasterKeyRefused> {
        let mut master = self.master.write();
        *master = Arc::new(MasterKey::begin_rotation(master.path())?);
        Ok(())
    }

    /// Ends the rotation. `stored` is every wrapped data key that the store holds, read after the last of
    /// them was written; new tenants may have come meanwhile.
    ///
    /// # Errors
    /// [`MasterKeyRefused::StillNeeded`] if one of them needs the old key; both keys stay then.
    pub fn finish_master_rotation<'sealed>(
        &self,
        stored: impl IntoIterator<Item = &'sealed Sealed>,
    ) -> Result<(), MasterKeyRefused> {
        let mut master = self.master.write();
        *master = Arc::new(MasterKey::finish_rotation(master.path(), stored)?);
        Ok(())
    }

    /// A new data key for a tenant, wrapped: the tenant's record keeps it.
    #[must_use]
    pub fn new_data_key(&self, tenant: &TenantId) -> Sealed {
        let master = self.master();
        seal::wrap_secret(|key| master.wrap(&seal::data_key_aad(tenant), key), &random_key())
    }

    /// A tenant's data key, wrapped by the newest master key instead.
    ///
    /// # Errors
    /// [`SealBroken`] if no key of the master key file opens it, or if it is another tenant's.
    pub fn rewrap(&self, tenant: &TenantId, data_key: &Sealed) -> Result<Sealed, SealBroken> {
        let master = self.master();
        let aad = seal::data_key_aad(tenant);
        let opened = master.unwrap(&aad, data_key)?;
        Ok(seal::wrap_secret(|key| master.wrap(&aad, key), &opened))
    }

    /// Checks a value against the place of its kind, seals it for exactly this version, and fingerprints
    /// it.
    ///
    /// # Errors
    /// [`ValueRefused`]; the value is wiped.
    pub fn accept(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        version: u32,
        kind: &CredentialKind,
        value: SecretInput,
    ) -> Result<Accepted, ValueRefused> {
        let value = value.into_secret();
        accept::check(kind, &value)?;
        // What needs no value has one all the same, which nobody knows: two such credentials hold nothing in common.
        let value = if kind.stored() == StoredForm::Nothing { random_key() } else { value };
        let key = self.tenant_key(tenant, VALUES).map_err(|_| ValueRefused::Unsealable)?;
        let aad = seal::value_aad(tenant, credential, version);
        let sealed = seal::wrap_secret(|plain| key.seal(&aad, plain), &value);
        Ok(Accepted { sealed, fingerprint: self.master().fingerprint(&value) })
    }

    /// Seals a version's value anew, as another version of the same credential: so a tenant goes back to it.
    ///
    /// # Errors
    /// [`SealBroken`] if there is no such version, or if its bytes were destroyed or do not open.
    pub fn reseal(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        from: u32,
        to: u32,
    ) -> Result<Accepted, SealBroken> {
        let record = self.record(tenant, credential).ok_or(SealBroken)?;
        let value = self.open_version(&record, from)?;
        let key = self.tenant_key(tenant, VALUES)?;
        let aad = seal::value_aad(tenant, credential, to);
        let sealed = seal::wrap_secret(|plain| key.seal(&aad, plain), &value);
        Ok(Accepted { sealed, fingerprint: self.master().fingerprint(&value) })
    }

    /// Seals, as a version of a credential, what is made of parts of the version that was selected and of what answers
    /// left in the vessel, each on a line of its own. Nobody reads it on the way.
    ///
    /// # Errors
    /// [`ValueRefused`], also if a part is not there.
    pub fn seal_held(
        &self,
        selected: &Selected,
        vessel: &Vessel,
        parts: &[Ingredient],
        version: u32,
    ) -> Result<Accepted, ValueRefused> {
        self.seal_held_as(selected.kind(), selected, vessel, parts, version)
    }

    /// As [`Self::seal_held`], for a credential that becomes one of this kind with that version.
    ///
    /// # Errors
    /// As there.
    pub fn seal_held_as(
        &self,
        kind: &CredentialKind,
        selected: &Selected,
        vessel: &Vessel,
        parts: &[Ingredient],
        version: u32,
    ) -> Result<Accepted, ValueRefused> {
        let (tenant, credential) = (selected.tenant(), selected.credential());
        let record = self.record(tenant, credential).ok_or(ValueRefused::Unsealable)?;
        let stored = if selected.is_waiting() {
            None
        } else {
            Some(self.open_version(&record, selected.version()).map_err(|_| ValueRefused::Unsealable)?)
        };
        let open = |part| carry::opened(part, stored.as_ref(), vessel).ok_or(ValueRefused::NotKeyAndToken);
        let opened = parts.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        // Reserved whole, so that it is never moved while it grows.
        let mut value = Zeroizing::new(Vec::with_capacity(opened.iter().map(|part| part.bytes().len() + 1).sum()));
        for (index, part) in opened.iter().enumerate() {
            if index > 0 {
                value.push(b'\n');
            }
            value.extend_from_slice(part.bytes());
        }
        let value = SecretInput::exactly(Secret::take(std::mem::take(&mut *value)));
        self.accept(tenant, credential, version, kind, value)
    }

    /// Seals what is not a credential but is the tenant's alone, as the scrubbed answer of an idempotent
    /// call (P7). It opens for the same tenant and context only.
    ///
    /// # Errors
    /// [`SealBroken`] if the tenant's data key is missing or does not open.
    pub fn seal_for_tenant(&self, tenant: &TenantId, context: &str, plain: &[u8]) -> Result<Sealed, SealBroken> {
        Ok(self.tenant_key(tenant, ANSWERS)?.seal(&seal::context_aad(tenant, context), plain))
    }

    /// Opens what [`Self::seal_for_tenant`] sealed.
    ///
    /// # Errors
    /// [`SealBroken`] if it was sealed for another tenant or context, or was changed.
    pub fn open_for_tenant(&self, tenant: &TenantId, context: &str, sealed: &Sealed) -> Result<Vec<u8>, SealBroken> {
        let opened = self.tenant_key(tenant, ANSWERS)?.open(&seal::context_aad(tenant, context), sealed)?;
        Ok(seal::give_back(&opened))
    }

    /// A key of 256 bits for one use that needs no secret of a tenant's: the context names the use and
    /// when it began, as `keybearer 2026-11 cursors`. It changes when the master key does.
    #[must_use]
    pub fn derive_key(&self, context: &str) -> Zeroizing<[u8; 32]> {
        self.master().derive(context)
    }

    /// A MAC by the key of that context.
    #[must_use]
    pub fn mac(&self, context: &str, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.derive_key(context), bytes).as_bytes()
    }

    /// A MAC by a key of the tenant's for that use: another tenant's differs, and so does that of a tenant of the
    /// same name later. It stays when the master key is rotated.
    ///
    /// # Errors
    /// [`SealBroken`] if the tenant's data key is missing or does not open.
    pub fn mac_for_tenant(&self, tenant: &TenantId, context: &str, bytes: &[u8]) -> Result<[u8; 32], SealBroken> {
        let wrapped = self.directory.data_key(tenant).ok_or(SealBroken)?;
        let data_key = self.master().unwrap(&seal::data_key_aad(tenant), &wrapped)?;
        Ok(*blake3::keyed_hash(&seal::derive_key(&data_key, context), bytes).as_bytes())
    }

    /// To be called when a revocation is in the store and before it is acknowledged: from now on nothing
    /// of an epoch before `new_epoch` is leased; the requests that hold such a lease are told to close
    /// their connections, and are waited for. Returns how many were told.
    pub async fn barrier_revoke(&self, tenant: &TenantId, credential: &CredentialId, new_epoch: u64) -> u64 {
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        self.guards.end_before(&key, new_epoch, true).await
    }

    /// As [`Self::barrier_revoke`], for a rotation: requests in flight are waited for, not cancelled.
    pub async fn barrier_rotate(&self, tenant: &TenantId, credential: &CredentialId, new_epoch: u64) {
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        self.guards.end_before(&key, new_epoch, false).await;
    }

    /// Whether what was selected was rotated or revoked since: select again.
    #[must_use]
    pub fn is_over(&self, selected: &Selected) -> bool {
        self.guards.is_over(&selected.guard_key(), selected.epoch())
    }

    /// The record, if it is what was asked for: a directory that answers with something else is broken,
    /// and is not believed (threats A04).
    pub(crate) fn record(&self, tenant: &TenantId, credential: &CredentialId) -> Option<Arc<CredentialRecord>> {
        let record = self.directory.credential(tenant, credential)?;
        (record.tenant == *tenant && record.id == *credential).then_some(record)
    }

    /// The record of what was minted with a credential, also of one that is revoked.
    #[must_use]
    pub fn record_of(&self, undo: &Undo) -> Option<Arc<CredentialRecord>> {
        self.record(undo.selected.tenant(), undo.selected.credential())
    }

    /// Opens one version of a record.
    pub(crate) fn open_version(&self, record: &CredentialRecord, version: u32) -> Result<Secret, SealBroken> {
        let stored = record
            .versions
            .iter()
            .find(|stored| stored.version == version && stored.state != VersionState::Destroyed)
            .ok_or(SealBroken)?;
        let aad = seal::value_aad(&record.tenant, &record.id, version);
        self.tenant_key(&record.tenant, VALUES)?.open(&aad, &stored.sealed)
    }

    /// The key of a tenant's under which records have digests of what was signed for it: it goes with the tenant, and the
    /// same text has another digest of another tenant's.
    ///
    /// # Errors
    /// [`SealBroken`] if the tenant's data key is missing or does not open.
    pub fn digest_key(&self, tenant: &TenantId) -> Result<Zeroizing<[u8; 32]>, SealBroken> {
        let wrapped = self.directory.data_key(tenant).ok_or(SealBroken)?;
        Ok(seal::derive_key(&self.data_key(tenant, wrapped)?.0, DIGESTS))
    }

    fn tenant_key(&self, tenant: &TenantId, use_: Use) -> Result<Arc<SealingKey>, SealBroken> {
        let wrapped = self.directory.data_key(tenant).ok_or(SealBroken)?;
        if let Some(key) = self.keys.kept(tenant, use_, &wrapped) {
            return Ok(key);
        }
        let (data_key, wrapped) = self.data_key(tenant, wrapped)?;
        let key = Arc::new(seal::subkey(&data_key, use_));
        self.keys.keep(tenant, use_, wrapped, &key);
        // A tenant that left meanwhile leaves no key behind.
        if self.directory.data_key(tenant).is_none() {
            self.keys.forget(tenant);
        }
        Ok(key)
    }

    /// A tenant's data key, and the wrapped one that it came from.
    fn data_key(&self, tenant: &TenantId, mut wrapped: Sealed) -> Result<(Secret, Sealed), SealBroken> {
        let aad = seal::data_key_aad(tenant);
        loop {
            match self.master().unwrap(&aad, &wrapped) {
                Ok(data_key) => return Ok((data_key, wrapped)),
                Err(broken) => {
                    // A rotation of the master key that ended between the two looks has wrapped it anew.
                    let now = self.directory.data_key(tenant).ok_or(SealBroken)?;
                    if now == wrapped {
                        return Err(broken);
                    }
                    wrapped = now;
                }
            }
        }
    }

    pub(crate) fn master(&self) -> Arc<MasterKey> {
        Arc::clone(&self.master.read())
    }
}

#[cfg(test)]
#[path = "strongbox_tests.rs"]
mod tests;
