//! The catalogue: packages that were published, as they were signed. It is the operator's; a tenant
//! sees of it what is visible to all or to it. A version number never goes back by itself (threats
//! W13).

use std::sync::Arc;

use keybearer_contract::Digest;
use keybearer_contract::Manifest;
use keybearer_contract::PackageName;
use keybearer_contract::TenantId;
use keybearer_contract::ToolDescription;
use keybearer_contract::UnixMillis;
use rusqlite::OptionalExtension as _;
use rusqlite::params;
use serde::Deserialize;
use serde::Serialize;

use crate::Store;
use crate::StoreError;
use crate::StoreUnavailable;
use crate::store::to_json;

/// A published package, without its component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// The package's name.
    pub name: PackageName,
    /// What names it exactly: over component and manifest text.
    pub digest: Digest,
    /// The manifest, parsed.
    pub manifest: Manifest,
    /// The manifest as it was signed.
    #[serde(skip)]
    pub manifest_text: Vec<u8>,
    /// What the tools said of themselves, frozen at publish.
    pub tools: Vec<ToolDescription>,
    /// Who signed it: hex of an ed25519 public key.
    pub signer: String,
    /// When it was published.
    pub published: UnixMillis,
    /// The tenants that see it; none means every one.
    pub visible_to: Option<Vec<TenantId>>,
    /// When it was withdrawn: it is not called any more.
    pub withdrawn: Option<UnixMillis>,
}

impl PackageRecord {
    /// Whether this tenant may call it.
    #[must_use]
    pub fn is_open_to(&self, tenant: &TenantId) -> bool {
        self.withdrawn.is_none() && self.visible_to.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }
}

/// Whether an older version may become the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// The operator asked for it.
    Allowed,
    /// No.
    Refused,
}

impl Store {
    /// Publishes a package; it becomes the newest of its name. The same one once more changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the digest is not that of these bytes, if a later version number is in
    /// the catalogue or this very package was withdrawn and no rollback is allowed, or if it is there
    /// with another signer or visibility.
    pub fn publish(
        &self,
        record: PackageRecord,
        component: &[u8],
        rollback: Rollback,
    ) -> Result<Arc<PackageRecord>, StoreError> {
        if Digest::of_package(component, &record.manifest_text) != record.digest {
            return Err(StoreError::Conflict("the digest is not that of the component and the manifest"));
        }
        self.commit(
            |transaction| {
                let known = self.package(&record.digest);
                if let Some(known) = known.filter(|known| rollback == Rollback::Refused || known.withdrawn.is_none()) {
                    return Ok((same_again(known, &record)?, false));
                }
                self.check_version(&record, rollback)?;
                // AUTOINCREMENT gives a new position, above every one before.
                transaction.execute("DELETE FROM packages WHERE digest = ?1", [record.digest.to_string()])?;
                transaction.execute(
                    "INSERT INTO packages (digest, record, manifest, component) VALUES (?1, ?2, ?3, ?4)",
                    params![record.digest.to_string(), to_json(&record), record.manifest_text, component],
                )?;
                Ok((Arc::new(record), true))
            },
            |image, (record, is_new)| {
                if is_new {
                    image.packages.put_newest(Arc::clone(&record));
                }
                record
            },
        )
    }

    fn check_version(&self, record: &PackageRecord, rollback: Rollback) -> Result<(), StoreError> {
        let number = version_number(record);
        let versions = self.versions(&record.name);
        if rollback == Rollback::Refused && versions.iter().any(|other| version_number(other) > number) {
            return Err(StoreError::Conflict("a later version is published: allow the rollback if it is meant"));
        }
        Ok(())
    }

    /// Withdraws a package: it stays listed and is not called any more. Once more keeps the time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn withdraw(&self, digest: &Digest, at: UnixMillis) -> Result<Arc<PackageRecord>, StoreError> {
        self.change_package(digest, |record| {
            record.withdrawn.get_or_insert(at);
        })
    }

    /// Sets who sees a package; none means every tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn set_visibility(
        &self,
        digest: &Digest,
        visible_to: Option<Vec<TenantId>>,
    ) -> Result<Arc<PackageRecord>, StoreError> {
        self.change_package(digest, |record| record.visible_to = visible_to)
    }

    fn change_package(
        &self,
        digest: &Digest,
        change: impl FnOnce(&mut PackageRecord),
    ) -> Result<Arc<PackageRecord>, StoreError> {
        self.commit(
            |transaction| {
                let mut record = PackageRecord::clone(&*self.package(digest).ok_or(StoreError::NotFound)?);
                change(&mut record);
                transaction.execute(
                    "UPDATE packages SET record = ?2 WHERE digest = ?1",
                    params![digest.to_string(), to_json(&record)],
                )?;
                Ok(Arc::new(record))
            },
            |image, record| {
                image.packages.replace(Arc::clone(&record));
                record
            },
        )
    }

    /// The package of this digest, withdrawn or not.
    #[must_use]
    pub fn package(&self, digest: &Digest) -> Option<Arc<PackageRecord>> {
        self.image().packages.by_digest.get(digest).cloned()
    }

    /// Every version of a package, newest first, from memory; empty where there is none.
    #[must_use]
    pub fn versions(&self, name: &PackageName) -> Arc<[Arc<PackageRecord>]> {
        self.image().packages.by_name.get(name).cloned().unwrap_or_default()
    }

    /// The version of a package that a call of this tenant means: the newest that is open to it.
    #[must_use]
    pub fn newest_for(&self, tenant: &TenantId, name: &PackageName) -> Option<Arc<PackageRecord>> {
        let image = self.image();
        image.packages.by_name.get(name)?.iter().find(|package| package.is_open_to(tenant)).cloned()
    }

    /// Every package, by name and then newest first.
    #[must_use]
    pub fn packages(&self) -> Vec<Arc<PackageRecord>> {
        let image = self.image();
        let mut names: Vec<_> = image.packages.by_name.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        names.into_iter().flat_map(|(_, versions)| versions.iter().cloned()).collect()
    }

    /// The component's bytes, read from the disk and checked against the digest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Unavailable`] if the bytes are not those any more that were
    /// published.
    pub fn component(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let found = self.query(|connection| {
            let sql = "SELECT component, manifest FROM packages WHERE digest = ?1";
            let row = connection.query_row(sql, [digest.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
            Ok(row.optional()?)
        })?;
        let (component, manifest): (Vec<u8>, Vec<u8>) = found.ok_or(StoreError::NotFound)?;
        if Digest::of_package(&component, &manifest) != *digest {
            tracing::error!(%digest, "a stored package is not what was published: restore the store from a backup");
            return Err(StoreUnavailable.into());
        }
        Ok(component)
    }
}

fn same_again(known: Arc<PackageRecord>, record: &PackageRecord) -> Result<Arc<PackageRecord>, StoreError> {
    if known.withdrawn.is_some() {
        return Err(StoreError::Conflict("this package was withdrawn: allow the rollback if it is meant"));
    }
    if known.signer != record.signer || known.visible_to != record.visible_to {
        return Err(StoreError::Conflict("this package is published with another signer or visibility"));
    }
    Ok(known)
}

/// `major.minor.patch`; a manifest that parsed has no other form.
fn version_number(record: &PackageRecord) -> Vec<u32> {
    record.manifest.package.version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}
