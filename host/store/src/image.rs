//! The image of the tables in memory: what the way of a call asks. What belongs to a tenant hangs
//! below the tenant, so that a look-up that does not begin with it cannot be written (threats T04,
//! T07). Tokens, API's and runs', and hooks are the exception: they are what tells the tenant.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::HookId;
use keybearer_contract::IdMap;
use keybearer_contract::PackageName;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::TenantName;
use keybearer_contract::TokenId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Grant;
use keybearer_gate::HookRecord;
use keybearer_gate::NoticeTarget;
use keybearer_gate::RunRecord;
use keybearer_gate::Sealed;
use keybearer_gate::TenantRecord;
use keybearer_gate::TokenRecord;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use rusqlite::Connection;
use rusqlite::Row;
use serde::de::DeserializeOwned;

use crate::Named;
use crate::PackageRecord;
use crate::incidents::Incidents;
use crate::revocations::Revoked;
use crate::store::from_json;

/// The tables, as of the last committed transaction.
#[derive(Default)]
pub(crate) struct Image {
    tenants: IdMap<TenantId, TenantImage>,
    names: HashMap<TenantName, TenantId>,
    pub(crate) tokens: IdMap<TokenId, Arc<TokenRecord>>,
    /// Whose run it is: for its token alone.
    run_owners: IdMap<RunId, TenantId>,
    pub(crate) hooks: IdMap<HookId, Arc<HookRecord>>,
    pub(crate) packages: Packages,
    pub(crate) revoked: Revoked,
    pub(crate) incidents: Incidents,
    /// Where the operator wants his notices.
    pub(crate) operators_notices: Option<Arc<NoticeTarget>>,
}

/// What belongs to one living tenant.
pub(crate) struct TenantImage {
    pub(crate) record: Arc<TenantRecord>,
    pub(crate) data_key: Sealed,
    pub(crate) credentials: IdMap<CredentialId, Arc<CredentialRecord>>,
    pub(crate) credential_names: HashMap<String, CredentialId>,
    pub(crate) grants: IdMap<PackageName, Arc<[Grant]>>,
    pub(crate) runs: IdMap<RunId, Arc<RunRecord>>,
    pub(crate) revoked_principals: HashSet<String>,
    pub(crate) revoked_agents: HashSet<String>,
    /// Where it wants its notices.
    pub(crate) notices: Option<Arc<NoticeTarget>>,
}

/// The operator's catalogue.
#[derive(Default)]
pub(crate) struct Packages {
    pub(crate) by_digest: IdMap<Digest, Arc<PackageRecord>>,
    /// Newest first.
    pub(crate) by_name: IdMap<PackageName, Arc<[Arc<PackageRecord>]>>,
}

impl Image {
    /// What belongs to this tenant.
    pub(crate) fn tenant(&self, id: &TenantId) -> Option<&TenantImage> {
        self.tenants.get(id)
    }

    pub(crate) fn tenant_mut(&mut self, id: &TenantId) -> Option<&mut TenantImage> {
        self.tenants.get_mut(id)
    }

    pub(crate) fn tenant_named(&self, name: &TenantName) -> Option<&TenantImage> {
        self.tenants.get(self.names.get(name)?)
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &TenantImage> {
        self.tenants.values()
    }

    pub(crate) fn put_tenant(&mut self, record: Arc<TenantRecord>, data_key: Sealed) {
        self.names.insert(record.name.clone(), record.id.clone());
        let tenant = TenantImage {
            record: Arc::clone(&record),
            data_key,
            credentials: IdMap::default(),
            credential_names: HashMap::new(),
            grants: IdMap::default(),
            runs: IdMap::default(),
            revoked_principals: HashSet::new(),
            revoked_agents: HashSet::new(),
            notices: None,
        };
        self.tenants.insert(record.id.clone(), tenant);
    }

    pub(crate) fn remove_tenant(&mut self, id: &TenantId) {
        if let Some(tenant) = self.tenants.remove(id) {
            self.names.remove(&tenant.record.name);
            self.tokens.retain(|_, token| token.tenant != *id);
            self.run_owners.retain(|_, owner| owner != id);
            self.hooks.retain(|_, hook| hook.tenant != *id);
            self.incidents.remove_tenant(id);
        }
    }

    /// The run whose token names it.
    pub(crate) fn run_of_token(&self, id: &RunId) -> Option<&Arc<RunRecord>> {
        self.tenant(self.run_owners.get(id)?)?.runs.get(id)
    }

    /// Puts a run in the place of its earlier record, or beside the others.
    pub(crate) fn put_run(&mut self, run: Arc<RunRecord>) {
        if let Some(tenant) = self.tenants.get_mut(&run.tenant) {
            self.run_owners.insert(run.id.clone(), run.tenant.clone());
            tenant.runs.insert(run.id.clone(), run);
        }
    }

    pub(crate) fn remove_run(&mut self, tenant: &TenantId, id: &RunId) {
        self.run_owners.remove(id);
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.runs.remove(id);
        }
    }
}

impl TenantImage {
    pub(crate) fn put_credential(&mut self, record: Arc<CredentialRecord>) {
        self.credential_names.insert(record.name.clone(), record.id.clone());
        self.credentials.insert(record.id.clone(), record);
    }

    /// Puts a grant in the place of the one for the same slot, or beside the others.
    pub(crate) fn put_grant(&mut self, grant: Grant) {
        let slots = self.grants.entry(grant.package.clone()).or_default();
        let others = slots.iter().filter(|other| other.slot != grant.slot).cloned();
        *slots = others.chain([grant.clone()]).collect();
    }

    pub(crate) fn remove_grant(&mut self, grant: &Grant) {
        if let Some(slots) = self.grants.get_mut(&grant.package) {
            *slots = slots.iter().filter(|other| other.id != grant.id).cloned().collect();
        }
        self.grants.retain(|_, slots| !slots.is_empty());
    }
}

impl Packages {
    /// Adds a package as the newest of its name, or moves it there.
    pub(crate) fn put_newest(&mut self, package: Arc<PackageRecord>) {
        let versions = self.by_name.entry(package.name.clone()).or_default();
        let others = versions.iter().filter(|other| other.digest != package.digest).cloned();
        *versions = [Arc::clone(&package)].into_iter().chain(others).collect();
        self.by_digest.insert(package.digest, package);
    }

    /// Changes what is said of a package, and leaves it in its place.
    pub(crate) fn replace(&mut self, package: Arc<PackageRecord>) {
        if let Some(versions) = self.by_name.get_mut(&package.name) {
            let same = |other: &Arc<PackageRecord>| other.digest == package.digest;
            *versions = versions.iter().map(|other| if same(other) { &package } else { other }).cloned().collect();
        }
        self.by_digest.insert(package.digest, package);
    }
}

/// Why an image could not be loaded.
pub(crate) enum Damage {
    /// SQLite says so.
    Sql(rusqlite::Error),
    /// A row is not what this build writes; names the table.
    Row(String),
}

impl From<rusqlite::Error> for Damage {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Image {
    /// Reads every table.
    pub(crate) fn load(connection: &Connection) -> Result<Self, Damage> {
        let mut image = Self { incidents: Incidents::load(connection)?, ..Self::default() };
        each(connection, "SELECT record, data_key FROM tenants WHERE removed IS NULL", |row| {
            let record: TenantRecord = record(row, "tenants")?;
            image.put_tenant(Arc::new(record), Sealed(row.get::<_, Vec<u8>>(1)?.into()));
            Ok(())
        })?;
        each(connection, "SELECT record FROM tokens", |row| {
            let token: TokenRecord = record(row, "tokens")?;
            image.tokens.insert(token.id.clone(), Arc::new(token));
            Ok(())
        })?;
        each(connection, "SELECT record FROM hooks", |row| {
            let hook: HookRecord = record(row, "hooks")?;
            if image.tenants.contains_key(&hook.tenant) {
                image.hooks.insert(hook.id.clone(), Arc::new(hook));
            }
            Ok(())
        })?;
        crate::notices::load(&mut image, connection)?;
        image.load_credentials(connection)?;
        each(connection, "SELECT record FROM grants", |row| {
            let grant: Grant = record(row, "grants")?;
            image.tenants.get_mut(&grant.tenant).ok_or_else(|| stray("grants"))?.put_grant(grant);
            Ok(())
        })?;
        each(connection, "SELECT tenant, kind, name FROM revocations", |row| {
            let malformed = || Damage::Row("a row of `revocations` does not parse".to_owned());
            let (tenant, kind, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            image.put_revoked(match kind.as_str() {
                "principal" => Named::Principal(tenant.parse().map_err(|_| malformed())?, name),
                "agent" => {
                    let agent = name.parse().map_err(|_| malformed())?;
                    Named::Agent(tenant.parse().map_err(|_| malformed())?, agent)
                }
                "tool" => Named::Tool(name.parse().map_err(|_| malformed())?),
                "signer" => Named::Signer(name),
                _ => return Err(malformed()),
            });
            Ok(())
        })?;
        each(connection, "SELECT record FROM runs", |row| {
            let run: RunRecord = record(row, "runs")?;
            if image.tenant(&run.tenant).is_none() {
                return Err(stray("runs"));
            }
            image.put_run(Arc::new(run));
            Ok(())
        })?;
        each(connection, "SELECT record, manifest FROM packages ORDER BY position", |row| {
            let mut package: PackageRecord = record(row, "packages")?;
            package.manifest_text = row.get(1)?;
            image.packages.put_newest(Arc::new(package));
            Ok(())
        })?;
        Ok(image)
    }

    fn load_credentials(&mut self, connection: &Connection) -> Result<(), Damage> {
        let mut versions: HashMap<(String, String), Vec<VersionRecord>> = HashMap::new();
        let sql = "SELECT tenant, credential, version, state, created, fingerprint, sealed FROM versions
                   ORDER BY tenant, credential, version";
        each(connection, sql, |row| {
            versions.entry((row.get(0)?, row.get(1)?)).or_default().push(version(row)?);
            Ok(())
        })?;
        let sql = "SELECT record, epoch FROM credentials
                   WHERE tenant IN (SELECT tenant FROM tenants WHERE removed IS NULL)";
        each(connection, sql, |row| {
            let mut credential: CredentialRecord = record(row, "credentials")?;
            if i64::try_from(credential.epoch) != Ok(row.get(1)?) {
                return Err(Damage::Row("a credential has two epochs".to_owned()));
            }
            let key = (credential.tenant.to_string(), credential.id.to_string());
            credential.versions = versions.remove(&key).unwrap_or_default();
            let tenant = self.tenants.get_mut(&credential.tenant).ok_or_else(|| stray("credentials"))?;
            tenant.put_credential(Arc::new(credential));
            Ok(())
        })
    }
}

pub(crate) fn each(
    connection: &Connection,
    sql: &str,
    mut visit: impl FnMut(&Row<'_>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row)?;
    }
    Ok(())
}

pub(crate) fn record<T: DeserializeOwned>(row: &Row<'_>, table: &str) -> Result<T, Damage> {
    let text: String = row.get(0)?;
    from_json(&text).map_err(|error| Damage::Row(format!("a row of `{table}` does not parse: {error}")))
}

pub(crate) fn stray(table: &str) -> Damage {
    Damage::Row(format!("a row of `{table}` names a tenant that is not there"))
}

fn version(row: &Row<'_>) -> Result<VersionRecord, Damage> {
    let malformed = || Damage::Row("a row of `versions` does not parse".to_owned());
    let state = match row.get_ref(3)?.as_str().map_err(|_| malformed())? {
        "current" => VersionState::Current,
        "retired" => VersionState::Retired,
        "revoked" => VersionState::Revoked,
        "destroyed" => VersionState::Destroyed,
        _ => return Err(malformed()),
    };
    Ok(VersionRecord {
        version: row.get(2)?,
        sealed: Sealed(row.get::<_, Vec<u8>>(6)?.into()),
        fingerprint: row.get::<_, [u8; 32]>(5)?,
        created: UnixMillis(row.get::<_, i64>(4)?.unsigned_abs()),
        state,
    })
}
