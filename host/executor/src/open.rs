//! Putting the executor together: store, master key, strongbox, ledger, sandbox, egress, in the order in
//! which each needs the one before. A store that is older than the ledger is refused: what was revoked
//! since its backup would live again (threats C08).

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use keybearer_contract::Limits;
use keybearer_egress::ConfigInvalid;
use keybearer_egress::Egress;
use keybearer_egress::EgressConfig;
use keybearer_gate::Addressee;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::NoticeTarget;
use keybearer_gate::QuotaLimits;
use keybearer_gate::Quotas;
use keybearer_ledger::ActKind;
use keybearer_ledger::Durability;
use keybearer_ledger::Ledger;
use keybearer_ledger::LedgerConfig;
use keybearer_ledger::LedgerRefused;
use keybearer_ledger::Recovery;
use keybearer_ledger::UnknownOutcome;
use keybearer_sandbox::CompileMode;
use keybearer_sandbox::Sandbox;
use keybearer_sandbox::SandboxConfig;
use keybearer_sandbox::SetupFailed;
use keybearer_store::Store;
use keybearer_store::StoreError;
use keybearer_store::StoreRefused;
use keybearer_strongbox::MasterKey;
use keybearer_strongbox::MasterKeyRefused;
use keybearer_strongbox::Strongbox;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::Executor;
use crate::RunLimits;
use crate::act;
use crate::catalogue::Catalogue;
use crate::counters::Counting;
use crate::notices::Notices;
use crate::rows::RowCeilings;
use crate::rows::Rows;
use crate::runs::LiveRuns;
use crate::subscriptions::Subscriptions;
use crate::uses::Uses;
use crate::watches::Watches;

/// How an executor is set up.
pub struct ExecutorConfig {
    /// Everything that it keeps lives here: `store.db`, `master.key`, `ledger/`, `cache/`.
    pub folder: PathBuf,
    /// The ledger's anchor, outside of the ledger's folder; best on another disk.
    pub anchor: PathBuf,
    /// What a record survives before its effect may happen.
    pub durability: Durability,
    /// What no call exceeds.
    pub ceilings: Limits,
    /// How requests leave.
    pub egress: EgressConfig,
    /// How many guests may run at once.
    pub instances: u32,
    /// The compile child: executable and arguments; none compiles in this process.
    pub compile_child: Option<(PathBuf, Vec<String>)>,
    /// Calls at the same time, of all tenants together.
    pub concurrent_calls: u32,
    /// For tenants that say nothing: calls a second, calls at the same time.
    pub tenant_defaults: (u32, u32),
    /// What runs may use.
    pub runs: RunLimits,
    /// How much may be stored.
    pub rows: RowCeilings,
    /// Whose packages may be published.
    pub signers: Signers,
    /// Whether a value that another tenant has stored is refused.
    pub refuse_shared_values: bool,
    /// How long, at the most, a rotation keeps the old value as one to go back to, in seconds.
    pub overlap_s_max: u64,
    /// Names of dangerous settings in force, for the record of the start.
    pub dangerous: Vec<String>,
}

/// Whose packages may be published.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    /// Public keys, hex.
    pub trusted: Vec<String>,
    /// Public keys, hex, that are trusted no more, whatever the other list says.
    pub revoked: Vec<String>,
}

impl Signers {
    pub(crate) fn trusts(&self, signer: &str) -> bool {
        self.trusted.iter().any(|key| key == signer) && !self.revoked.iter().any(|key| key == signer)
    }
}

/// The executor cannot be put together; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefused {
    /// The folder cannot be made.
    #[error("the folder {path} cannot be used: {why}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreRefused),
    /// The store, once it is open.
    #[error(transparent)]
    Reading(#[from] StoreError),
    /// The master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyRefused),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerRefused),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SetupFailed),
    /// The egress.
    #[error(transparent)]
    Egress(#[from] ConfigInvalid),
    /// The store is older than the ledger.
    #[error(
        "the store is older than the ledger: credential {credential} has epoch {stored} and had {recorded}; \
         put the newer store back, or what was revoked since would live again"
    )]
    StoreTooOld {
        /// Which credential.
        credential: String,
        /// Its epoch in the store; 0 where it is missing.
        stored: u64,
        /// Its epoch in the ledger.
        recorded: u64,
    },
    /// The store is older than the ledger.
    #[error(
        "the store is older than the ledger: it has {stored} changes, and had {recorded} when something was revoked; \
         put the newer store back, or what was revoked since would live again"
    )]
    StoreRolledBack {
        /// How many changes the store has.
        stored: u64,
        /// How many it had when an act was recorded.
        recorded: u64,
    },
    /// The master key does not open this store.
    #[error(
        "the master key does not open the data key of tenant {tenant}: put the key back that belongs to this store"
    )]
    ForeignKey {
        /// Whose.
        tenant: String,
    },
    /// There is no master key, and a store that needs one.
    #[error(
        "the master key {} is missing: put the key back that belongs to this store; without it nothing that is \
         stored ever opens again",
        path.display()
    )]
    KeyMissing {
        /// Where it was.
        path: PathBuf,
    },
    /// The start could not be recorded.
    #[error("the ledger cannot be written: {0}")]
    Record(#[from] keybearer_ledger::LedgerUnavailable),
}

/// How long a call waits for a place before it is told to come back.
const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// Waiting calls of one tenant; more are told at once to come back.
const QUEUE_PER_TENANT: usize = 256;

/// How long a guest may hold a thread. Short against a person's patience, long against the cost of a tick.
const TICK: Duration = Duration::from_millis(5);

/// What the key of the compiled-code cache is derived for.
const CACHE_KEY_CONTEXT: &str = "keybearer 2026-11 compiled code cache";

impl Executor {
    /// Puts an executor together. Blocks; call it before anything listens.
    ///
    /// # Errors
    /// [`OpenRefused`], with a sentence that says what to do.
    pub async fn open(config: ExecutorConfig) -> Result<Arc<Self>, OpenRefused> {
        let path = config.folder.clone();
        std::fs::create_dir_all(&path).map_err(|why| OpenRefused::Folder { path, why })?;
        let store = Store::open(&config.folder.join("store.db"))?;
        let master = master_key(config.folder.join("master.key"), &store)?;
        let rotating = master.is_rotating();
        let strongbox = Arc::new(Strongbox::new(master, Arc::clone(&store) as _));
        if rotating {
            carry_on_rotation(&store, &strongbox)?;
        }
        check_keys(&store, &strongbox)?;
        let mut ledger_config = LedgerConfig::new(config.folder.join("ledger"), config.anchor);
        ledger_config.durability = config.durability;
        let (ledger, recovery) = Ledger::open(ledger_config)?;
        report(&recovery);
        check_epochs(&store, &recovery)?;
        let compile = match config.compile_child {
            Some((exe, args)) => CompileMode::Child { exe, args },
            None => CompileMode::InProcess,
        };
        let sandbox = Arc::new(Sandbox::new(SandboxConfig {
            cache_dir: Some(config.folder.join("cache")),
            cache_key: strongbox.derive_key(CACHE_KEY_CONTEXT),
            ceilings: config.ceilings,
            instances: config.instances,
            compile,
            tick: TICK,
        })?);
        let egress = Arc::new(Egress::new(&config.egress)?);
        let quotas = Quotas::new(QuotaLimits {
            places: config.concurrent_calls as usize,
            queue_per_tenant: QUEUE_PER_TENANT,
            wait: QUEUE_WAIT,
        });
        let cut_off = CancellationToken::new();
        let uses = Uses::load(store.uses()?);
        let executor = Arc::new(Self {
            catalogue: Catalogue::new(Arc::clone(&store), Arc::clone(&sandbox), config.signers.revoked.clone()),
            store,
            strongbox,
            ledger,
            egress,
            sandbox,
            quotas,
            mints: keybearer_sources::Mints::new(),
            watches: Watches::default(),
            subscriptions: Subscriptions::default(),
            workload: std::sync::OnceLock::new(),
            consents: crate::consent::Consents::default(),
            orphans: Arc::default(),
            counters: Counting::default(),
            ceilings: config.ceilings,
            signers: config.signers,
            refuse_shared_values: config.refuse_shared_values,
            overlap_s_max: config.overlap_s_max,
            overlap_added: Arc::default(),
            tenant_defaults: config.tenant_defaults,
            rows: Rows::new(config.rows),
            folder: config.folder,
            notices: Notices::default(),
            auditing: tokio::sync::Mutex::default(),
            walks: crate::incidents::Walks::default(),
            issuers: crate::turns::Turns::new(crate::discovery::ISSUERS_AT_ONCE),
            uses,
            running: TaskTracker::new(),
            stopping: AtomicBool::new(false),
            run_limits: config.runs,
            holders: crate::holders::Holders::new(),
            live: LiveRuns::new(cut_off.clone()),
            cut_off,
        });
        executor.ledger.act(act::of_host(ActKind::ServerStarted, env!("CARGO_PKG_VERSION"))).await?;
        for setting in &config.dangerous {
            tracing::warn!(setting, "a dangerous setting is in force");
            executor.ledger.act(act::of_host(ActKind::DangerousSetting, setting)).await?;
        }
        executor.watch_overlaps();
        executor.take_up_runs();
        executor.reap_orphans();
        executor.take_up_consents();
        executor.take_up_notices();
        executor.take_up_incidents().await;
        Ok(executor)
    }
}

/// The master key, made where no store hangs from one yet. A new one beside a store that it does not open would be taken
/// for the store's own: by whoever puts a backup back without overwriting, and by the next backup.
fn master_key(path: PathBuf, store: &Store) -> Result<MasterKey, OpenRefused> {
    if store.data_keys().is_empty() && store.notice_target(&Addressee::Operator).is_none() {
        return Ok(MasterKey::open_or_create(path)?);
    }
    match MasterKey::open(&path) {
        Err(MasterKeyRefused::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(OpenRefused::KeyMissing { path })
        }
        opened => Ok(opened?),
    }
}

/// A rotation of the master key that was cut off is carried on: both keys are in the file.
fn carry_on_rotation(store: &Store, strongbox: &Strongbox) -> Result<(), OpenRefused> {
    tracing::warn!("a rotation of the master key was cut off: it is carried on");
    let mut wrapped = Vec::new();
    for (tenant, old) in store.data_keys() {
        let foreign = |_| OpenRefused::ForeignKey { tenant: tenant.to_string() };
        wrapped.push((tenant.clone(), strongbox.rewrap(&tenant, &old).map_err(foreign)?));
    }
    store.replace_data_keys(wrapped)?;
    if let Some(target) = store.notice_target(&Addressee::Operator) {
        let foreign = |_| OpenRefused::ForeignKey { tenant: "the operator".to_owned() };
        let sealed = strongbox.rewrap_notice(&target.id, &target.sealed).map_err(foreign)?;
        let target = NoticeTarget { sealed, ..NoticeTarget::clone(&target) };
        store.set_notice_target(&Addressee::Operator, Some(target))?;
    }
    let (stored, target) = (store.data_keys(), store.notice_target(&Addressee::Operator));
    let stored = stored.iter().map(|(_, sealed)| sealed).chain(target.iter().map(|target| &target.sealed));
    Ok(strongbox.finish_master_rotation(stored)?)
}

/// Whether a master key is that of the store in this folder, as far as one of its tenants tells. Nothing is opened for
/// good and nothing is changed.
///
/// # Errors
/// [`OpenRefused::ForeignKey`] if it is not; [`OpenRefused::Store`] if the store cannot be read.
pub fn check_master_key(store: &Path, key: &MasterKey) -> Result<(), OpenRefused> {
    match Store::peek_data_key(store)? {
        Some((tenant, data_key)) if !key.opens(&tenant, &data_key) => {
            Err(OpenRefused::ForeignKey { tenant: tenant.to_string() })
        }
        _ => Ok(()),
    }
}

/// Every tenant's data key opens, or nothing starts: found out now, not at the first call.
fn check_keys(store: &Store, strongbox: &Strongbox) -> Result<(), OpenRefused> {
    for tenant in store.tenants() {
        let opens = store.data_key(&tenant.id).is_some_and(|key| strongbox.rewrap(&tenant.id, &key).is_ok());
        if !opens {
            return Err(OpenRefused::ForeignKey { tenant: tenant.id.to_string() });
        }
    }
    Ok(())
}

fn check_epochs(store: &Store, recovery: &Recovery) -> Result<(), OpenRefused> {
    let stored: std::collections::HashMap<_, _> =
        store.epochs()?.into_iter().map(|row| ((row.tenant, row.credential), row.epoch)).collect();
    // A tenant that left took its credentials along; that it left is counted among the commits.
    let removed = store.removed_tenants()?;
    for (key, recorded) in recovery.epochs.iter().filter(|(key, _)| !removed.contains(&key.0)) {
        let epoch = stored.get(key).copied().unwrap_or(0);
        if epoch < *recorded {
            let credential = key.1.to_string();
            return Err(OpenRefused::StoreTooOld { credential, stored: epoch, recorded: *recorded });
        }
    }
    let commits = store.commits();
    if commits < recovery.commit {
        return Err(OpenRefused::StoreRolledBack { stored: commits, recorded: recovery.commit });
    }
    Ok(())
}

fn report(recovery: &Recovery) {
    if recovery.torn_bytes > 0 {
        tracing::warn!(bytes = recovery.torn_bytes, "the ledger ended in a torn record, which was cut off");
    }
    for unknown in &recovery.unknown {
        match unknown {
            UnknownOutcome::Call(facts) => {
                tracing::warn!(call = %facts.call, tenant = %facts.tenant, tool = %facts.tool, "outcome unknown: the call was cut off");
            }
            UnknownOutcome::Dispatch(dispatch) => {
                tracing::warn!(dispatch = %dispatch.dispatch, call = %dispatch.facts.call, tenant = %dispatch.facts.tenant, "outcome unknown: the upstream may have acted");
            }
        }
    }
}

/// The sandbox of `keybearer tool check`: one instance, nothing kept.
pub(crate) fn checking_sandbox() -> SandboxConfig {
    SandboxConfig {
        cache_dir: None,
        cache_key: Zeroizing::new([0; 32]),
        ceilings: Limits::default(),
        instances: 1,
        compile: CompileMode::InProcess,
        tick: TICK,
    }
}
