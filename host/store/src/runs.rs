//! Runs: those that are open, and for a while those that ended. That no run outlives the one that it was
//! opened within is kept here, where one writer sees both.

use std::sync::Arc;

use keybearer_contract::IdMap;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use keybearer_gate::RunState;
use rusqlite::Transaction;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_json;

/// How many runs may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunBounds {
    /// Of one tenant, sub-runs counted.
    pub open: usize,
    /// Within one run that a principal opened, at every depth together.
    pub sub_runs: usize,
}

impl Store {
    /// Stores a new run.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the tenant is gone; [`StoreError::Conflict`] if a run that it is opened within
    /// is not open, or too many are.
    pub fn insert_run(&self, record: RunRecord, bounds: RunBounds) -> Result<Arc<RunRecord>, StoreError> {
        let record = Arc::new(record);
        self.commit(
            |transaction| {
                let image = self.image();
                let runs = &image.tenant(&record.tenant).ok_or(StoreError::NotFound)?.runs;
                let is_open = |id: &RunId| runs.get(id).is_some_and(|run| run.state == RunState::Open);
                if !record.parents.iter().all(is_open) {
                    return Err(StoreError::Conflict("the run that it would be opened within has ended"));
                }
                let open = || runs.values().filter(|run| run.state == RunState::Open);
                if open().count() >= bounds.open {
                    return Err(StoreError::Conflict("too many runs of the tenant are open: end those that are done"));
                }
                let root = record.parents.first();
                if root.is_some_and(|root| open().filter(|run| run.is_within(root)).count() >= bounds.sub_runs) {
                    return Err(StoreError::Conflict("too many sub-runs of the run are open: end those that are done"));
                }
                transaction.execute(
                    "INSERT INTO runs (tenant, id, record) VALUES (?1, ?2, ?3)",
                    params![record.tenant.as_str(), record.id.as_str(), to_json(&*record)],
                )?;
                Ok(())
            },
            |image, ()| image.put_run(Arc::clone(&record)),
        )?;
        Ok(record)
    }

    /// Ends a run and every open run within it. Returns those that were open; none, if it had ended already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for another tenant's as well.
    pub fn end_run(
        &self,
        tenant: &TenantId,
        id: &RunId,
        how: RunEnd,
        at: UnixMillis,
    ) -> Result<Vec<Arc<RunRecord>>, StoreError> {
        self.commit(
            |transaction| {
                let mut ended = Vec::new();
                for run in self.open_with_sub_runs(tenant, id).ok_or(StoreError::NotFound)? {
                    let run = RunRecord { state: RunState::Ended { how, at }, ..RunRecord::clone(&run) };
                    write(transaction, &run)?;
                    ended.push(Arc::new(run));
                }
                Ok(ended)
            },
            |image, ended| {
                ended.iter().for_each(|run| image.put_run(Arc::clone(run)));
                ended
            },
        )
    }

    /// Gives an open run another token, if it is of this generation still, and raises the generation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for another tenant's as well; [`StoreError::Conflict`] if it ended or is of a later
    /// generation.
    pub fn resume_run(
        &self,
        tenant: &TenantId,
        id: &RunId,
        generation: u64,
        token_hash: [u8; 32],
    ) -> Result<Arc<RunRecord>, StoreError> {
        self.commit(
            |transaction| {
                let run = self.run(tenant, id).ok_or(StoreError::NotFound)?;
                if run.state != RunState::Open || run.generation != generation {
                    return Err(StoreError::Conflict("the run has ended or was resumed since"));
                }
                let run = RunRecord { generation: generation + 1, token_hash, ..RunRecord::clone(&run) };
                write(transaction, &run)?;
                Ok(Arc::new(run))
            },
            |image, run| {
                image.put_run(Arc::clone(&run));
                run
            },
        )
    }

    /// Forgets the runs that ended before this, and of each tenant all but so many that ended last. Returns how
    /// many there were.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn forget_runs(&self, before: UnixMillis, keep: usize) -> Result<usize, StoreError> {
        let old: Vec<_> =
            self.image().tenants().flat_map(|tenant| ended_long_ago(&tenant.runs, before, keep)).collect();
        if old.is_empty() {
            return Ok(0);
        }
        self.commit(
            |transaction| {
                for (tenant, id) in &old {
                    let key = params![tenant.as_str(), id.as_str()];
                    transaction.execute("DELETE FROM runs WHERE tenant = ?1 AND id = ?2", key)?;
                }
                Ok(())
            },
            |image, ()| old.iter().for_each(|(tenant, id)| image.remove_run(tenant, id)),
        )?;
        Ok(old.len())
    }

    /// This run of this tenant.
    #[must_use]
    pub fn run(&self, tenant: &TenantId, id: &RunId) -> Option<Arc<RunRecord>> {
        self.image().tenant(tenant)?.runs.get(id).cloned()
    }

    /// This run of this tenant and those within it, as far as they are open; none if there is no such run.
    #[must_use]
    pub fn open_with_sub_runs(&self, tenant: &TenantId, id: &RunId) -> Option<Vec<Arc<RunRecord>>> {
        let image = self.image();
        let runs = &image.tenant(tenant)?.runs;
        runs.get(id)?;
        let concerned = runs.values().filter(|run| run.id == *id || run.is_within(id));
        Some(concerned.filter(|run| run.state == RunState::Open).cloned().collect())
    }

    /// Every run of this tenant that is remembered, oldest first.
    #[must_use]
    pub fn runs(&self, tenant: &TenantId) -> Vec<Arc<RunRecord>> {
        let mut runs: Vec<_> = match self.image().tenant(tenant) {
            Some(tenant) => tenant.runs.values().cloned().collect(),
            None => Vec::new(),
        };
        runs.sort_unstable_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        runs
    }

    /// Every open run of every tenant; for the start.
    #[must_use]
    pub fn open_runs(&self) -> Vec<Arc<RunRecord>> {
        let image = self.image();
        let runs = image.tenants().flat_map(|tenant| tenant.runs.values());
        runs.filter(|run| run.state == RunState::Open).cloned().collect()
    }
}

fn ended_long_ago(runs: &IdMap<RunId, Arc<RunRecord>>, before: UnixMillis, keep: usize) -> Vec<(TenantId, RunId)> {
    let ended = |run: &&Arc<RunRecord>| match run.state {
        RunState::Ended { at, .. } => Some((at, run.tenant.clone(), run.id.clone())),
        RunState::Open => None,
    };
    let mut ended: Vec<_> = runs.values().filter_map(|run| ended(&run)).collect();
    ended.sort_unstable_by(|a, b| b.cmp(a));
    let recent = ended.iter().take(keep).take_while(|(at, ..)| *at >= before).count();
    ended.into_iter().skip(recent).map(|(_, tenant, id)| (tenant, id)).collect()
}

fn write(transaction: &Transaction<'_>, run: &RunRecord) -> Result<(), StoreError> {
    transaction.execute(
        "UPDATE runs SET record = ?3 WHERE tenant = ?1 AND id = ?2",
        params![run.tenant.as_str(), run.id.as_str(), to_json(run)],
    )?;
    Ok(())
}
