//! What the tests of this room share: folders, a cleared request, and a disk that fails when told to.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Cleared;
use keybearer_gate::ClearedSignature;
use keybearer_gate::Facts;
use keybearer_gate::PrincipalLabel;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::IntentDetails;
use crate::Ledger;
use crate::LedgerConfig;
use crate::LedgerRefused;
use crate::Purpose;
use crate::Recovery;
use crate::SignatureDetails;

/// Where a test makes the disk fail or wait.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) failing_sync: AtomicBool,
    pub(crate) syncs: AtomicU64,
    /// Held by a test, it holds up every sync.
    pub(crate) gate: Mutex<()>,
}

impl Faults {
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        let _open = self.gate.lock();
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.failing_sync.load(Ordering::SeqCst) {
            // What Linux answers when a page could not be written.
            return Err(io::Error::from_raw_os_error(5));
        }
        file.sync_data()
    }
}

pub(crate) fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// A ledger's places within a temporary folder.
pub(crate) struct Place {
    pub(crate) root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { root: folder() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("ledger")
    }

    pub(crate) fn anchor(&self) -> PathBuf {
        self.root.path().join("anchor")
    }

    /// Small segments, and no checkpoint but those that are asked for.
    pub(crate) fn config(&self) -> LedgerConfig {
        LedgerConfig {
            segment_bytes: 16 << 10,
            sync_every: Duration::from_millis(10),
            checkpoint_every_records: 1_000_000,
            ..LedgerConfig::new(self.dir(), self.anchor())
        }
    }

    pub(crate) fn open(&self) -> (Ledger, Recovery) {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_open(&self) -> Result<(Ledger, Recovery), LedgerRefused> {
        Ledger::open(self.config())
    }

    /// The newest segment.
    pub(crate) fn segment(&self) -> PathBuf {
        self.segments().pop().expect("a segment")
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        crate::read::segments(&self.dir()).expect("lists").into_iter().map(|segment| segment.path).collect()
    }

    /// The folder as it is now, to be put back later.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = folder();
        copy_files(&self.dir(), copy.path());
        copy
    }

    pub(crate) fn put_back(&self, copy: &TempDir) {
        std::fs::remove_dir_all(self.dir()).expect("removes");
        std::fs::create_dir(self.dir()).expect("creates");
        copy_files(copy.path(), &self.dir());
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
    }
}

pub(crate) fn facts() -> Facts {
    Facts {
        tenant: TenantId::random(),
        // A label such as an issuer may make it: with what JSON must escape.
        principal: serde_json::from_str::<PrincipalLabel>(r#""jwt:https://id.example#a\"b\\é""#).expect("label"),
        run: RunId::random(),
        call: CallId::random(),
        tool: "stripe.create_refund".parse().expect("name"),
        package: Digest::of_package(b"component", b"manifest"),
    }
}

/// A request with a credential: the host's own to a source is the least that can be cleared.
pub(crate) fn cleared(facts: &Facts) -> Cleared {
    cleared_for(facts, &CredentialId::random())
}

/// The same, with this credential.
pub(crate) fn cleared_for(facts: &Facts, credential: &CredentialId) -> Cleared {
    let record = serde_json::json!({
        "id": credential, "tenant": facts.tenant, "name": "c",
        "kind": { "kind": "oauth_client_credentials", "token_url": "https://id.example/token?a=b", "client_id": "c" },
        "owner": "o", "justification": "j", "created": 1, "state": "active", "epoch": 3, "versions": [],
    });
    let record = serde_json::from_value(record).expect("a credential's record");
    let url = "https://id.example/token?a=b".parse().expect("canonical");
    let exchange = keybearer_gate::Exchange::new(keybearer_contract::Method::Post, url);
    keybearer_gate::clear_exchange(facts, &record, exchange).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// A signature over a message of a guest's.
pub(crate) fn cleared_signature(facts: &Facts, message: &str) -> ClearedSignature {
    let manifest = keybearer_contract::Manifest::parse(
        r#"
        [package]
        name = "stripe"
        version = "0.1.0"
        description = "d"
        [[slots]]
        name = "mac"
        description = "d"
        placement = { kind = "function", signs = { kind = "hmac", algorithm = "hmac-sha256", context = "orders-v1.", max_bytes = 64 } }
    "#,
    )
    .expect("a manifest");
    let credential = CredentialId::random();
    let record = serde_json::json!({
        "id": credential, "tenant": facts.tenant, "name": "c", "kind": { "kind": "hmac_key" },
        "owner": "o", "justification": "j", "created": 1, "state": "active", "epoch": 3, "versions": [],
    });
    let slot = "mac".parse().expect("a name");
    let grant = keybearer_gate::Grant {
        id: keybearer_contract::GrantId::random(),
        tenant: facts.tenant.clone(),
        package: facts.tool.package.clone(),
        approved: keybearer_gate::Approved::of(&manifest, facts.package, "s", &[], Some(&slot)).into(),
        slot: Some(slot),
        credential: Some(credential),
        base_url: None,
        actions: None,
        created: UnixMillis(1),
    };
    let rights = keybearer_gate::Rights { grants: &[grant], credentials: &One(record) };
    let what = keybearer_contract::ToSign::Message(message.as_bytes().to_vec());
    let asked = keybearer_contract::GuestSignature { slot: "mac".to_owned(), what };
    keybearer_gate::clear_signature(facts, &manifest, rights, asked, UnixMillis(1))
        .unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The one credential there is, as JSON.
struct One(serde_json::Value);

impl keybearer_gate::CredentialDirectory for One {
    fn credential(&self, _: &TenantId, _: &CredentialId) -> Option<Arc<keybearer_gate::CredentialRecord>> {
        Some(Arc::new(serde_json::from_value(self.0.clone()).expect("a credential's record")))
    }

    fn data_key(&self, _: &TenantId) -> Option<keybearer_gate::Sealed> {
        None
    }
}

pub(crate) fn details() -> IntentDetails<'static> {
    let address: SocketAddr = "203.0.113.7:443".parse().expect("address");
    let (purpose, withheld) = (Purpose::Mint, &keybearer_gate::NothingWithheld);
    IntentDetails { version: Some(2), epoch: Some(3), address, purpose, svid: None, withheld }
}

pub(crate) fn signing_details() -> SignatureDetails<'static> {
    SignatureDetails { version: 2, epoch: 3, digest_key: &[7; 32], withheld: &keybearer_gate::NothingWithheld }
}

/// Runs what may wait, on this thread.
pub(crate) fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("starts").block_on(what)
}

/// Waits for something that another thread does.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}
