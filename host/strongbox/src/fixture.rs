//! What the tests of this room stand on: a directory in memory, a strongbox over it, and requests that
//! were really cleared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature;
use keybearer_contract::Manifest;
use keybearer_contract::Method;
use keybearer_contract::RunId;
use keybearer_contract::SlotName;
use keybearer_contract::TenantId;
use keybearer_contract::ToSign;
use keybearer_contract::UnixMillis;
use keybearer_gate::Approved;
use keybearer_gate::Cleared;
use keybearer_gate::ClearedSignature;
use keybearer_gate::CredentialDirectory;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Facts;
use keybearer_gate::Grant;
use keybearer_gate::NothingWithheld;
use keybearer_gate::OauthClient;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Rights;
use keybearer_gate::Sealed;
use keybearer_gate::Terms;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::Intent;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Ledger;
use keybearer_ledger::LedgerConfig;
use keybearer_ledger::Purpose;
use keybearer_ledger::SignatureDetails;
use parking_lot::Mutex;

use crate::Lease;
use crate::MasterKey;
use crate::SecretInput;
use crate::Selected;
use crate::Strongbox;

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// The directory, and what a test does to it.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) credentials: Mutex<HashMap<(TenantId, CredentialId), Arc<CredentialRecord>>>,
    pub(crate) data_keys: Mutex<HashMap<TenantId, Sealed>>,
}

impl CredentialDirectory for Records {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        self.credentials.lock().get(&(tenant.clone(), id.clone())).cloned()
    }

    fn data_key(&self, tenant: &TenantId) -> Option<Sealed> {
        self.data_keys.lock().get(tenant).cloned()
    }
}

impl Records {
    fn put(&self, tenant: &TenantId, id: &CredentialId, kind: CredentialKind) {
        let record = CredentialRecord {
            id: id.clone(),
            tenant: tenant.clone(),
            name: "test".to_owned(),
            kind,
            owner: "somebody".to_owned(),
            justification: "a test".to_owned(),
            expires: None,
            state: CredentialState::Active,
            epoch: 1,
            created: NOW,
            versions: Vec::new(),
            overlaps: Vec::new(),
            renewal: None,
            registration: None,
            consent: None,
            terms: Terms::default(),
        };
        self.credentials.lock().insert((tenant.clone(), id.clone()), Arc::new(record));
    }
}

pub(crate) struct House {
    pub(crate) strongbox: Strongbox,
    pub(crate) records: Arc<Records>,
    pub(crate) folder: tempfile::TempDir,
    ledger: OnceLock<Ledger>,
}

impl House {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let records = Arc::new(Records::default());
        let master = MasterKey::open_or_create(folder.path().join("master.key")).expect("made");
        Self { strongbox: Strongbox::new(master, records.clone()), records, folder, ledger: OnceLock::new() }
    }

    pub(crate) fn tenant(&self) -> TenantId {
        let tenant = TenantId::random();
        self.records.data_keys.lock().insert(tenant.clone(), self.strongbox.new_data_key(&tenant));
        tenant
    }

    /// Stores a credential with one version.
    pub(crate) fn credential(&self, tenant: &TenantId, kind: CredentialKind, value: &str) -> CredentialId {
        let id = CredentialId::random();
        self.records.put(tenant, &id, kind);
        self.change(tenant, &id, |record| record.versions.push(self.version(record, 1, value)));
        id
    }

    pub(crate) fn version(&self, record: &CredentialRecord, version: u32, value: &str) -> VersionRecord {
        let value = SecretInput::new(value.as_bytes().to_vec());
        let accepted = self
            .strongbox
            .accept(&record.tenant, &record.id, version, &record.kind, value)
            .unwrap_or_else(|refused| panic!("{refused}"));
        VersionRecord {
            version,
            sealed: accepted.sealed,
            fingerprint: accepted.fingerprint,
            created: NOW,
            state: VersionState::Current,
        }
    }

    pub(crate) fn change(&self, tenant: &TenantId, id: &CredentialId, change: impl FnOnce(&mut CredentialRecord)) {
        let mut credentials = self.records.credentials.lock();
        let record = credentials.get(&(tenant.clone(), id.clone())).expect("stored").clone();
        let mut record = Arc::unwrap_or_clone(record);
        drop(credentials);
        change(&mut record);
        credentials = self.records.credentials.lock();
        credentials.insert((tenant.clone(), id.clone()), Arc::new(record));
    }

    /// What was selected of a credential, now.
    pub(crate) fn selected(&self, tenant: &TenantId, credential: &CredentialId) -> Selected {
        self.strongbox.select(tenant, credential, NOW).unwrap_or_else(|unusable| panic!("{unusable}"))
    }

    /// A lease of a credential, without the ledger.
    pub(crate) fn lease(&self, tenant: &TenantId, credential: &CredentialId) -> Lease {
        let selected = self.selected(tenant, credential);
        self.strongbox.lease_recorded(selected, NOW).unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// The intent of a request, recorded in a ledger.
    pub(crate) async fn intent(&self, cleared: &Cleared, selected: Option<&Selected>) -> Intent {
        let details = IntentDetails {
            version: selected.map(Selected::version),
            epoch: selected.map(Selected::epoch),
            address: ([127, 0, 0, 1], 443).into(),
            purpose: Purpose::Guest,
            svid: selected.and_then(|selected| self.strongbox.svid_of(selected)),
            withheld: &NothingWithheld,
        };
        self.ledger().intend(cleared, details).await.unwrap_or_else(|error| panic!("{error}")).0
    }

    /// The intent of a signature, recorded in a ledger.
    pub(crate) async fn signing_intent(&self, cleared: &ClearedSignature, selected: &Selected) -> Intent {
        let (version, epoch) = (selected.version(), selected.epoch());
        let details = SignatureDetails { version, epoch, digest_key: &[7; 32], withheld: &NothingWithheld };
        let recorded = self.ledger().intend_signature(cleared, details).await;
        recorded.unwrap_or_else(|error| panic!("{error}")).0
    }

    fn ledger(&self) -> &Ledger {
        let folder = self.folder.path();
        self.ledger.get_or_init(|| {
            Ledger::open(LedgerConfig::new(folder.join("ledger"), folder.join("anchor"))).expect("opened").0
        })
    }

    /// What a rotation does to the record.
    pub(crate) fn rotate(&self, tenant: &TenantId, id: &CredentialId, value: &str) {
        self.change(tenant, id, |record| {
            let next = record.versions.len() as u32 + 1;
            record.versions.iter_mut().for_each(|version| version.state = VersionState::Retired);
            record.versions.push(self.version(record, next, value));
            record.epoch += 1;
        });
    }
}

pub(crate) fn oauth(client_id: &str) -> CredentialKind {
    let token_url = "https://login.example.com/token".parse().expect("canonical");
    CredentialKind::OauthClientCredentials(OauthClient::new(token_url, client_id))
}

const MANIFEST: &str = r#"
    [package]
    name = "test"
    version = "0.1.0"
    description = "d"
    [[slots]]
    name = "bearer"
    description = "d"
    placement = { kind = "bearer" }
    bindings = [{ host = "bearer.example.com", methods = ["GET", "POST"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "basic"
    description = "d"
    placement = { kind = "basic" }
    bindings = [{ host = "basic.example.com", port = 8443, methods = ["GET"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "header"
    description = "d"
    placement = { kind = "header", name = "x-api-key" }
    bindings = [{ host = "header.example.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "query"
    description = "d"
    placement = { kind = "query", name = "key" }
    bindings = [{ host = "query.example.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "signed"
    description = "d"
    placement = { kind = "sigv4", region = "eu-west-1", service = "s3" }
    bindings = [{ host = "signed.example.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "mac"
    description = "d"
    placement = { kind = "hmac", header = "x-signature", algorithm = "hmac-sha256", over = "body", encoding = "hex" }
    bindings = [{ host = "mac.example.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "jwt"
    description = "d"
    placement = { kind = "jwt", algorithm = "EdDSA", claims = { iss = "us", aud = "them" }, lifetime_s = 60 }
    bindings = [{ host = "jwt.example.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[slots]]
    name = "fmac"
    description = "d"
    placement = { kind = "function", signs = { kind = "hmac", algorithm = "hmac-sha256", context = "orders-v1.", max_bytes = 64 } }
    [[slots]]
    name = "fjwt"
    description = "d"
    placement = { kind = "function", for_caller = true, signs = { kind = "jwt", algorithm = "EdDSA", claims = { iss = "us", aud = "them" }, may_claim = ["sub"], lifetime_s = 60 } }
    [[slots]]
    name = "furl"
    description = "d"
    placement = { kind = "function", for_caller = true, signs = { kind = "sigv4", region = "us-east-1", service = "s3", max_expires_s = 86400 } }
    bindings = [{ host = "examplebucket.s3.amazonaws.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[allow]]
    host = "open.example.com"
    methods = ["GET"]
    paths = ["/{rest...}"]
"#;

pub(crate) fn facts(tenant: &TenantId) -> Facts {
    Facts {
        tenant: tenant.clone(),
        principal: PrincipalLabel::host(),
        run: RunId::random(),
        call: CallId::random(),
        tool: "test.tool".parse().expect("name"),
        package: Digest::of_package(b"", b""),
    }
}

/// What a slot is asked to sign, cleared for this credential.
pub(crate) fn cleared_signature(
    tenant: &TenantId,
    slot: &str,
    credential: &CredentialId,
    what: ToSign,
) -> ClearedSignature {
    let facts = facts(tenant);
    let manifest = Manifest::parse(MANIFEST).expect("parses");
    let name: SlotName = slot.parse().expect("name");
    let grant = grant(&facts, &manifest, credential, Some(name));
    let records = Records::default();
    records.put(tenant, credential, CredentialKind::Bearer);
    let rights = Rights { grants: &[grant], credentials: &records };
    let asked = GuestSignature { slot: slot.to_owned(), what };
    keybearer_gate::clear_signature(&facts, &manifest, rights, asked, NOW).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn grant(facts: &Facts, manifest: &Manifest, credential: &CredentialId, slot: Option<SlotName>) -> Grant {
    Grant {
        id: GrantId::random(),
        tenant: facts.tenant.clone(),
        package: "test".parse().expect("name"),
        approved: Approved::of(manifest, facts.package, "signer", &[], slot.as_ref()).into(),
        credential: slot.is_some().then(|| credential.clone()),
        slot,
        base_url: None,
        actions: None,
        created: NOW,
    }
}

/// A request to the slot of that name, cleared for this credential; the slot `open` carries none.
pub(crate) fn cleared(tenant: &TenantId, slot: &str, credential: &CredentialId, path_and_query: &str) -> Cleared {
    let facts = facts(tenant);
    let manifest = Manifest::parse(MANIFEST).expect("parses");
    let name: Option<SlotName> = (slot != "open").then(|| slot.parse().expect("name"));
    let grant = grant(&facts, &manifest, credential, name);
    let port = if slot == "basic" { ":8443" } else { "" };
    let url = format!("https://{slot}.example.com{port}{path_and_query}");
    let request = GuestRequest { method: Method::Get, url, headers: Vec::new(), body: None };
    let records = Records::default();
    records.put(tenant, credential, CredentialKind::Bearer);
    let rights = Rights { grants: &[grant], credentials: &records };
    keybearer_gate::clear(&facts, &manifest, rights, request).unwrap_or_else(|refusal| panic!("{refusal}"))
}
