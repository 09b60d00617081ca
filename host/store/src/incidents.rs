//! Incidents. The quarantines of those that are open are asked for every call, and held in memory for that.

use std::sync::Arc;

use keybearer_contract::IdMap;
use keybearer_contract::IncidentId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_gate::IncidentRecord;
use keybearer_gate::Quarantine;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::image::Damage;
use crate::store::to_json;

/// The incidents, and what is quarantined because of those that are open.
#[derive(Default)]
pub(crate) struct Incidents {
    by_id: IdMap<IncidentId, Arc<IncidentRecord>>,
    /// By the tenant for whom; under none those for everybody. A tenant's own are looked through for its calls alone.
    quarantines: IdMap<Option<TenantId>, Vec<Quarantine>>,
}

/// Closed incidents of the operator's that are kept. The ledger has all of them for good.
const CLOSED_MAX: usize = 10_000;

/// Closed incidents of one tenant's own that are kept.
const CLOSED_OWN_MAX: usize = 256;

/// Open incidents of one tenant's own: more are one incident of the tenant, which is the operator's to open.
const OPEN_OWN_MAX: usize = 64;

impl Store {
    /// Stores an incident. Its quarantine is in force when this returns. Beyond 10 000 that are closed, or 256 of a
    /// tenant's own, the oldest of them goes.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for more of a tenant's own than may be open; [`StoreError::Unavailable`].
    pub fn insert_incident(&self, incident: IncidentRecord) -> Result<Arc<IncidentRecord>, StoreError> {
        let incident = Arc::new(incident);
        self.commit(
            |transaction| {
                // An empty tenant stands for the operator: no tenant has an empty id.
                let tenant = incident.subject.tenant().map_or("", TenantId::as_str);
                transaction.execute(
                    "INSERT INTO incidents (tenant, id, record) VALUES (?1, ?2, ?3)",
                    params![tenant, incident.id.as_str(), to_json(&*incident)],
                )?;
                let superfluous = {
                    let image = self.image();
                    image.incidents.check_room(&incident)?;
                    image.incidents.superfluous(&incident)
                };
                if let Some(old) = &superfluous {
                    transaction.execute("DELETE FROM incidents WHERE id = ?1", [old.as_str()])?;
                }
                Ok(superfluous)
            },
            |image, superfluous| {
                if let Some(old) = superfluous {
                    image.incidents.by_id.remove(&old);
                }
                image.incidents.put(Arc::clone(&incident));
            },
        )?;
        Ok(incident)
    }

    /// Changes an incident. Where it is closed, its quarantine is lifted when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Unavailable`].
    pub fn change_incident(
        &self,
        id: &IncidentId,
        change: impl FnOnce(&mut IncidentRecord),
    ) -> Result<Arc<IncidentRecord>, StoreError> {
        self.commit(
            |transaction| {
                let current = self.image().incidents.by_id.get(id).cloned().ok_or(StoreError::NotFound)?;
                let mut record = IncidentRecord::clone(&current);
                change(&mut record);
                transaction.execute(
                    "UPDATE incidents SET record = ?2 WHERE id = ?1",
                    params![id.as_str(), to_json(&record)],
                )?;
                Ok(Arc::new(record))
            },
            |image, record| {
                image.incidents.put(Arc::clone(&record));
                record
            },
        )
    }

    /// One incident.
    #[must_use]
    pub fn incident(&self, id: &IncidentId) -> Option<Arc<IncidentRecord>> {
        self.image().incidents.by_id.get(id).cloned()
    }

    /// The incidents, newest first.
    #[must_use]
    pub fn incidents(&self) -> Vec<Arc<IncidentRecord>> {
        let mut incidents: Vec<_> = self.image().incidents.by_id.values().cloned().collect();
        incidents.sort_unstable_by(|a, b| (b.opened, &b.id).cmp(&(a.opened, &a.id)));
        incidents
    }

    /// Whether an open incident keeps this tool from running for this tenant, from memory.
    #[must_use]
    pub fn is_quarantined(&self, tenant: &TenantId, tool: &ToolRef) -> bool {
        let image = self.image();
        let quarantines = &image.incidents.quarantines;
        // Nearly always, and asked for every call.
        if quarantines.is_empty() {
            return false;
        }
        let meant = quarantines.get(&None).into_iter().chain(quarantines.get(&Some(tenant.clone())));
        meant.flatten().any(|quarantine| quarantine.covers(tenant, tool))
    }
}

impl Incidents {
    /// Reads the tables.
    pub(crate) fn load(connection: &rusqlite::Connection) -> Result<Self, Damage> {
        let mut incidents = Self::default();
        crate::image::each(connection, "SELECT record FROM incidents", |row| {
            incidents.put(Arc::new(crate::image::record(row, "incidents")?));
            Ok(())
        })?;
        Ok(incidents)
    }

    fn put(&mut self, incident: Arc<IncidentRecord>) {
        self.by_id.insert(incident.id.clone(), incident);
        self.take_stock();
    }

    /// Forgets what was a tenant's that is gone.
    pub(crate) fn remove_tenant(&mut self, tenant: &TenantId) {
        self.by_id.retain(|_, incident| incident.subject.tenant() != Some(tenant));
        self.take_stock();
    }

    fn take_stock(&mut self) {
        self.quarantines.clear();
        for incident in self.by_id.values().filter(|incident| incident.is_open()) {
            for quarantine in &incident.quarantine {
                self.quarantines.entry(quarantine.tenant.clone()).or_default().push(quarantine.clone());
            }
        }
    }

    /// Refuses one of a tenant's own where as many are open as may be.
    fn check_room(&self, new: &IncidentRecord) -> Result<(), StoreError> {
        let open = self.by_id.values().filter(|incident| incident.is_open() && is_beside(incident, new)).count();
        if new.own && open >= OPEN_OWN_MAX {
            return Err(StoreError::Conflict("64 incidents are open: close one, or have the operator stop the tenant"));
        }
        Ok(())
    }

    /// The oldest that is closed, where there are as many as are kept: what a tenant opens takes no place of another's.
    fn superfluous(&self, new: &IncidentRecord) -> Option<IncidentId> {
        let max = if new.own { CLOSED_OWN_MAX } else { CLOSED_MAX };
        let is_meant = |incident: &&Arc<IncidentRecord>| !incident.is_open() && is_beside(incident, new);
        let closed: Vec<_> = self.by_id.values().filter(is_meant).collect();
        let oldest = closed.iter().min_by_key(|incident| incident.opened);
        oldest.filter(|_| closed.len() >= max).map(|incident| incident.id.clone())
    }
}

/// Whether two are kept in one place: the operator's, or one tenant's own.
fn is_beside(one: &IncidentRecord, other: &IncidentRecord) -> bool {
    one.own == other.own && (!one.own || one.subject.tenant() == other.subject.tenant())
}
