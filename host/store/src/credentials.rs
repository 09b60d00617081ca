//! Credentials: their records and their sealed versions. An epoch only grows, here, in the image and
//! by a trigger of the database itself: a store that forgot a revocation would bring a secret back.

use std::collections::HashMap;
use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Overlap;
use keybearer_gate::Renewal;
use keybearer_gate::Sealed;
use keybearer_gate::Terms;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use rusqlite::Transaction;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::StoreUnavailable;
use crate::store::from_json;
use crate::store::to_json;
use crate::store::to_sql;

/// One credential's epoch, for the comparison with the ledger: a store whose epochs are older than
/// the ledger's came out of a backup (threats C08). Those of removed tenants are among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub credential: CredentialId,
    /// Its epoch.
    pub epoch: u64,
}

/// Destroyed versions of a credential that renews itself, from its oldest on, that stay to be seen: such a one has a new
/// version with every access token.
const DESTROYED_MAX: usize = 16;

/// Versions of one credential to which its tenant can go back at the same time.
const OVERLAPS_MAX: usize = 16;

/// What is changed of the way in which a credential is held; what is none stays.
#[derive(Debug, Clone)]
pub struct TermsChange {
    /// Who answers for it.
    pub owner: Option<String>,
    /// Why it is here.
    pub justification: Option<String>,
    /// When it ends.
    pub expires: Option<UnixMillis>,
    /// On which terms it is held.
    pub terms: Terms,
}

impl Store {
    /// Stores a new credential with the versions that its record holds; none is allowed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the tenant has one of this name, or if the versions are not 1, 2, 3, …
    /// with one current at the most; [`StoreError::NotFound`] if the tenant is gone.
    pub fn insert_credential(&self, record: CredentialRecord) -> Result<Arc<CredentialRecord>, StoreError> {
        check_versions(&record.versions)?;
        if record.versions.first().is_some_and(|first| first.version != 1) {
            return Err(StoreError::Conflict("the first version is 1"));
        }
        let record = Arc::new(record);
        self.commit(
            |transaction| {
                let image = self.image();
                let tenant = image.tenant(&record.tenant).ok_or(StoreError::NotFound)?;
                if tenant.credential_names.contains_key(&record.name) {
                    return Err(StoreError::Conflict("a credential of this name exists"));
                }
                transaction.execute(
                    "INSERT INTO credentials (tenant, id, name, epoch, record) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        record.tenant.as_str(),
                        record.id.as_str(),
                        record.name,
                        to_sql(record.epoch)?,
                        record_column(&record)
                    ],
                )?;
                record.versions.iter().try_for_each(|version| insert_version(transaction, &record, version))
            },
            |image, ()| {
                if let Some(tenant) = image.tenant_mut(&record.tenant) {
                    tenant.put_credential(Arc::clone(&record));
                }
            },
        )?;
        Ok(record)
    }

    /// Adds a version. The one that was current is retired by the same transaction.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the credential is revoked, the epoch is not higher than the one that
    /// stands, or the version is not the next one and current; [`StoreError::NotFound`].
    pub fn add_version(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        version: VersionRecord,
        epoch: u64,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.add_version_beside(tenant, id, version, epoch, None)
    }

    /// As [`Self::add_version`], and the version that was current stays one to go back to for a time.
    ///
    /// # Errors
    /// As there; [`StoreError::Conflict`] if the overlap is of another version than the one that was current.
    pub fn add_version_beside(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        version: VersionRecord,
        epoch: u64,
        overlap: Option<Overlap>,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, transaction| {
            if record.state == CredentialState::Revoked {
                return Err(StoreError::Conflict("the credential is revoked: store a new one"));
            }
            if version.state != VersionState::Current {
                return Err(StoreError::Conflict("a new version is current"));
            }
            raise_epoch(record, epoch)?;
            if let Some(overlap) = overlap {
                let retiring = record.versions.iter().rfind(|version| version.state == VersionState::Current);
                if retiring.is_none_or(|retiring| retiring.version != overlap.version) {
                    return Err(StoreError::Conflict("the overlap is of a version that is not current"));
                }
                record.overlaps.push(overlap);
                // Their number is bounded by ending the oldest at once, and not by refusing a rotation.
                let over = record.overlaps.len().saturating_sub(OVERLAPS_MAX);
                record.overlaps.iter_mut().take(over).for_each(|overlap| overlap.until = UnixMillis(0));
            }
            retire(record, VersionState::Retired, transaction)?;
            insert_version(transaction, record, &version)?;
            record.versions.push(version);
            (record.state, record.renewal, record.consent) = (CredentialState::Active, None, None);
            check_versions(&record.versions)
        })
    }

    /// Raises the epoch of a credential whose source has something newer, whoever else raises it meanwhile; its versions
    /// stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn touch_credential(&self, tenant: &TenantId, id: &CredentialId) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, _| {
            record.epoch += 1;
            Ok(())
        })
    }

    /// Writes down that the current version is about to be replaced by what its source answers, before it is asked.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if another version is current, or if another process began since `abandoned`;
    /// [`StoreError::NotFound`].
    pub fn begin_renewal(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        renewal: Renewal,
        abandoned: UnixMillis,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, _| {
            let current = record.versions.iter().rfind(|version| version.state == VersionState::Current);
            if record.state != CredentialState::Active || current.is_none_or(|it| it.version != renewal.version) {
                return Err(StoreError::Conflict("another version is current: look at it again"));
            }
            if record.renewal.as_ref().is_some_and(|of| of.process != renewal.process && of.since > abandoned) {
                return Err(StoreError::Conflict("another process renews it"));
            }
            record.renewal = Some(renewal);
            Ok(())
        })
    }

    /// The source gave nothing new: a renewal of that version is over, and the version stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn end_renewal(&self, tenant: &TenantId, id: &CredentialId, version: u32) -> Result<(), StoreError> {
        let ended = self.change_credential(tenant, id, |record, _| {
            record.renewal = record.renewal.take().filter(|renewal| renewal.version != version);
            Ok(())
        });
        ended.map(drop)
    }

    /// Stores what a source gave in place of the current version, as [`Self::add_version`]. The version before stays,
    /// retired, to be scrubbed from answers; those before it are of no use to anybody, and their bytes are destroyed. Of
    /// destroyed ones the last few stay as numbers and times, for who looks at the credential; the ledger has them all.
    ///
    /// # Errors
    /// As [`Self::add_version`].
    pub fn renew(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        version: VersionRecord,
        epoch: u64,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        let before = version.version.saturating_sub(1);
        let record = self.add_version(tenant, id, version, epoch)?;
        let old = record.versions.iter().filter(|old| old.version < before && old.state == VersionState::Retired);
        let old: Vec<_> = old.filter(|old| record.overlaps.iter().all(|of| of.version != old.version)).collect();
        let record =
            old.into_iter().try_fold(Arc::clone(&record), |_, old| self.destroy_version(tenant, id, old.version))?;
        if destroyed_first(&record) > DESTROYED_MAX { self.forget_destroyed(tenant, id) } else { Ok(record) }
    }

    /// Forgets the oldest of many versions whose bytes are gone already.
    fn forget_destroyed(&self, tenant: &TenantId, id: &CredentialId) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, transaction| {
            let over = destroyed_first(record).saturating_sub(DESTROYED_MAX);
            for forgotten in record.versions.drain(..over) {
                transaction.execute(
                    "DELETE FROM versions WHERE tenant = ?1 AND credential = ?2 AND version = ?3 AND state = 'destroyed'",
                    params![tenant.as_str(), id.as_str(), forgotten.version],
                )?;
            }
            check_versions(&record.versions)
        })
    }

    /// The credential is not used until its account authorizes it again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it is not active, or if the epoch is not higher than the one that stands;
    /// [`StoreError::NotFound`].
    pub fn end_authorization(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        epoch: u64,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, _| {
            if record.state != CredentialState::Active {
                return Err(StoreError::Conflict("the credential is not in use"));
            }
            raise_epoch(record, epoch)?;
            (record.state, record.renewal) = (CredentialState::Reauthorise, None);
            Ok(())
        })
    }

    /// Holds a credential on other terms.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the epoch is not higher than the one that stands or the credential is revoked;
    /// [`StoreError::NotFound`].
    pub fn change_terms(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        epoch: u64,
        change: TermsChange,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, _| {
            if record.state == CredentialState::Revoked {
                return Err(StoreError::Conflict("the credential is revoked: store a new one"));
            }
            raise_epoch(record, epoch)?;
            let TermsChange { owner, justification, expires, terms } = change;
            owner.into_iter().for_each(|owner| record.owner = owner);
            justification.into_iter().for_each(|justification| record.justification = justification);
            record.expires = expires.or(record.expires);
            record.terms = terms;
            Ok(())
        })
    }

    /// Revokes a credential for good, and its current version with it. Once more raises the epoch only. The epoch is
    /// taken from the record as it stands: a revocation loses against nobody who raises it meanwhile. Returns what the
    /// credential was right before, and what it is now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn revoke_credential(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
    ) -> Result<(CredentialRecord, Arc<CredentialRecord>), StoreError> {
        let mut before = None;
        let now = self.change_credential(tenant, id, |record, transaction| {
            before = Some(record.clone());
            record.epoch += 1;
            (record.state, record.consent) = (CredentialState::Revoked, None);
            retire(record, VersionState::Revoked, transaction)
        })?;
        Ok((before.expect("what was changed was looked at"), now))
    }

    /// Destroys a version's bytes and its fingerprint, in the file and in memory.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for the current one: rotate or revoke first; [`StoreError::NotFound`].
    pub fn destroy_version(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        version: u32,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        let record = self.change_credential(tenant, id, |record, transaction| {
            let number = version;
            let found = record.versions.iter_mut().find(|version| version.version == number);
            let version = found.ok_or(StoreError::NotFound)?;
            if version.state == VersionState::Current {
                return Err(StoreError::Conflict("the version is in use: rotate or revoke the credential first"));
            }
            version.state = VersionState::Destroyed;
            record.overlaps.retain(|overlap| overlap.version != number);
            version.sealed = Sealed(Arc::default());
            version.fingerprint = [0; 32];
            transaction.execute(
                "UPDATE versions SET state = 'destroyed', sealed = x'', fingerprint = zeroblob(32)
                 WHERE tenant = ?1 AND credential = ?2 AND version = ?3",
                params![tenant.as_str(), id.as_str(), number],
            )?;
            Ok(())
        })?;
        self.forget_freed();
        Ok(record)
    }

    /// Forgets an overlap whose time is over; the version's bytes stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn forget_overlap(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        version: u32,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, _| {
            record.overlaps.retain(|overlap| overlap.version != version);
            Ok(())
        })
    }

    /// Every overlap of every credential.
    #[must_use]
    pub fn overlaps(&self) -> Vec<(TenantId, CredentialId, Overlap)> {
        let image = self.image();
        let credentials = image.tenants().flat_map(|tenant| tenant.credentials.values());
        let of = |record: &Arc<CredentialRecord>| {
            let record = Arc::clone(record);
            (0..record.overlaps.len()).map(move |at| (record.tenant.clone(), record.id.clone(), record.overlaps[at]))
        };
        credentials.flat_map(of).collect()
    }

    pub(crate) fn change_credential(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        change: impl FnOnce(&mut CredentialRecord, &Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.commit(
            |transaction| {
                let current = self.image().tenant(tenant).and_then(|tenant| tenant.credentials.get(id).cloned());
                let mut record = CredentialRecord::clone(&*current.ok_or(StoreError::NotFound)?);
                change(&mut record, transaction)?;
                transaction.execute(
                    "UPDATE credentials SET epoch = ?3, record = ?4 WHERE tenant = ?1 AND id = ?2",
                    params![tenant.as_str(), id.as_str(), to_sql(record.epoch)?, record_column(&record)],
                )?;
                Ok(Arc::new(record))
            },
            |image, record| {
                if let Some(tenant) = image.tenant_mut(tenant) {
                    tenant.put_credential(Arc::clone(&record));
                }
                record
            },
        )
    }

    /// The tenant's credential of this name.
    #[must_use]
    pub fn credential_by_name(&self, tenant: &TenantId, name: &str) -> Option<Arc<CredentialRecord>> {
        let image = self.image();
        let tenant = image.tenant(tenant)?;
        tenant.credentials.get(tenant.credential_names.get(name)?).cloned()
    }

    /// Every credential of this tenant, by name.
    #[must_use]
    pub fn credentials(&self, tenant: &TenantId) -> Vec<Arc<CredentialRecord>> {
        let mut records: Vec<_> = match self.image().tenant(tenant) {
            Some(tenant) => tenant.credentials.values().cloned().collect(),
            None => Vec::new(),
        };
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        records
    }

    /// Who else has the same value, across tenants. For the operator only; a tenant that could ask would
    /// learn what another one holds (P10).
    #[must_use]
    pub fn same_fingerprint(&self, fingerprint: &[u8; 32]) -> Vec<(TenantId, CredentialId)> {
        let has = |record: &&Arc<CredentialRecord>| {
            let same = |version: &VersionRecord| {
                version.state != VersionState::Destroyed && version.fingerprint == *fingerprint
            };
            record.versions.iter().any(same)
        };
        let image = self.image();
        let credentials = image.tenants().flat_map(|tenant| tenant.credentials.values());
        credentials.filter(has).map(|record| (record.tenant.clone(), record.id.clone())).collect()
    }

    /// Every value that more than one tenant has, by where it is. For the operator only, as above.
    #[must_use]
    pub fn shared_fingerprints(&self) -> Vec<Vec<(TenantId, CredentialId)>> {
        let mut places: HashMap<[u8; 32], Vec<(TenantId, CredentialId)>> = HashMap::new();
        for record in self.image().tenants().flat_map(|tenant| tenant.credentials.values()) {
            for version in record.versions.iter().filter(|version| version.state != VersionState::Destroyed) {
                let place = (record.tenant.clone(), record.id.clone());
                let same = places.entry(version.fingerprint).or_default();
                if !same.contains(&place) {
                    same.push(place);
                }
            }
        }
        places.into_values().filter(|same| same.iter().any(|(tenant, _)| *tenant != same[0].0)).collect()
    }

    /// Every credential's epoch, removed tenants' ones too.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn epochs(&self) -> Result<Vec<EpochRow>, StoreError> {
        let stored = self.query(|connection| {
            let mut statement = connection.prepare("SELECT record FROM credentials ORDER BY tenant, id")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        stored
            .iter()
            .map(|text| {
                let record: CredentialRecord = from_json(text).map_err(|error| {
                    tracing::error!(%error, "a stored credential does not parse");
                    StoreUnavailable
                })?;
                Ok(EpochRow { tenant: record.tenant, credential: record.id, epoch: record.epoch })
            })
            .collect()
    }
}

pub(crate) fn raise_epoch(record: &mut CredentialRecord, epoch: u64) -> Result<(), StoreError> {
    if epoch <= record.epoch {
        return Err(StoreError::Conflict("the credential was rotated or revoked in the meantime: look at it again"));
    }
    record.epoch = epoch;
    Ok(())
}

/// Takes the current version out of use.
fn retire(record: &mut CredentialRecord, state: VersionState, transaction: &Transaction<'_>) -> Result<(), StoreError> {
    for version in record.versions.iter_mut().filter(|version| version.state == VersionState::Current) {
        version.state = state;
    }
    transaction.execute(
        "UPDATE versions SET state = ?3 WHERE tenant = ?1 AND credential = ?2 AND state = 'current'",
        params![record.tenant.as_str(), record.id.as_str(), state_column(state)],
    )?;
    Ok(())
}

pub(crate) fn insert_version(
    transaction: &Transaction<'_>,
    record: &CredentialRecord,
    version: &VersionRecord,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO versions (tenant, credential, version, state, created, fingerprint, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            record.tenant.as_str(),
            record.id.as_str(),
            version.version,
            state_column(version.state),
            to_sql(version.created.0)?,
            version.fingerprint,
            &*version.sealed.0
        ],
    )?;
    Ok(())
}

pub(crate) fn check_versions(versions: &[VersionRecord]) -> Result<(), StoreError> {
    let numbered = versions.windows(2).all(|pair| pair[0].version.checked_add(1) == Some(pair[1].version));
    let currents = versions.iter().filter(|version| version.state == VersionState::Current).count();
    let last_is_current = versions.last().is_none_or(|last| last.state == VersionState::Current);
    if numbered && currents <= 1 && (currents == 0 || last_is_current) {
        return Ok(());
    }
    Err(StoreError::Conflict("a version is numbered one above the last, and only the last is current"))
}

/// How many of a credential's oldest versions are destroyed, without one among them that is not.
fn destroyed_first(record: &CredentialRecord) -> usize {
    record.versions.iter().take_while(|version| version.state == VersionState::Destroyed).count()
}

/// The record without its versions: those have rows of their own, with bytes as bytes.
fn record_column(record: &CredentialRecord) -> String {
    to_json(&CredentialRecord { versions: Vec::new(), ..record.clone() })
}

fn state_column(state: VersionState) -> &'static str {
    match state {
        VersionState::Current => "current",
        VersionState::Retired => "retired",
        VersionState::Revoked => "revoked",
        VersionState::Destroyed => "destroyed",
    }
}
