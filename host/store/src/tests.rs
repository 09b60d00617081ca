//! Tests of the store. What they have in common is here: a store in a temporary folder and things to
//! put into it.

mod notices;
mod opening;
mod operations;
mod orphans;
mod runs;
mod sources;
mod visibility;

use std::path::PathBuf;
use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::Limits;
use keybearer_contract::Manifest;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Approved;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Grant;
use keybearer_gate::Scopes;
use keybearer_gate::Sealed;
use keybearer_gate::TenantRecord;
use keybearer_gate::TenantState;
use keybearer_gate::TokenRecord;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;

use crate::IdempotencyKey;
use crate::PackageRecord;
use crate::Store;
use crate::StoreRefused;

/// A folder with a store in it, that can be opened again and again.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("store.db{suffix}"))
    }

    fn open(&self) -> Arc<Store> {
        Store::open(&self.path()).unwrap_or_else(|refused| panic!("{refused}"))
    }

    fn refused(&self) -> StoreRefused {
        Store::open(&self.path()).err().expect("the store is refused")
    }
}

fn sealed(text: &str) -> Sealed {
    Sealed(text.as_bytes().into())
}

fn tenant(store: &Store, name: &str) -> TenantId {
    let record = tenant_record(name);
    let id = record.id.clone();
    store.create_tenant(record, sealed(&format!("data key of {name}"))).expect("created");
    id
}

fn tenant_record(name: &str) -> TenantRecord {
    TenantRecord {
        id: TenantId::random(),
        name: name.parse().expect("name"),
        state: TenantState::Active,
        created: UnixMillis(1),
        limits: Limits::default(),
        calls_per_second: 10,
        concurrent_calls: 5,
    }
}

fn token(tenant: &TenantId) -> TokenRecord {
    TokenRecord {
        id: TokenId::random(),
        tenant: tenant.clone(),
        label: "ci".to_owned(),
        hash: [7; 32],
        scopes: Scopes::default(),
        packages: None,
        issued: UnixMillis(1),
        expires: UnixMillis(2),
        revoked: None,
        onboarding: keybearer_gate::Onboarding::default(),
    }
}

fn version(number: u32) -> VersionRecord {
    VersionRecord {
        version: number,
        sealed: sealed(&format!("sealed value number {number}")),
        fingerprint: [u8::try_from(number % 251).expect("small"); 32],
        created: UnixMillis(u64::from(number)),
        state: VersionState::Current,
    }
}

fn credential(tenant: &TenantId, name: &str) -> CredentialRecord {
    CredentialRecord {
        id: CredentialId::random(),
        tenant: tenant.clone(),
        name: name.to_owned(),
        kind: CredentialKind::Bearer,
        owner: "ops".to_owned(),
        justification: "refunds".to_owned(),
        expires: None,
        state: CredentialState::Active,
        epoch: 1,
        created: UnixMillis(1),
        versions: vec![version(1)],
        overlaps: Vec::new(),
        renewal: None,
        registration: None,
        consent: None,
        terms: keybearer_gate::Terms::default(),
    }
}

fn manifest_text(version: &str) -> String {
    format!(
        r#"
        [package]
        name = "stripe"
        version = "{version}"
        description = "d"
        [[slots]]
        name = "api"
        description = "d"
        placement = {{ kind = "bearer" }}
        bindings = [{{ host = "api.stripe.com", methods = ["POST"], paths = ["/v1/refunds"] }}]
        "#
    )
}

const COMPONENT: &[u8] = b"the bytes of a component, unlike any others in the file";

fn package(version: &str) -> PackageRecord {
    let text = manifest_text(version);
    let manifest = Manifest::parse(&text).expect("parses");
    PackageRecord {
        name: manifest.package.name.clone(),
        digest: Digest::of_package(COMPONENT, text.as_bytes()),
        manifest,
        manifest_text: text.into_bytes(),
        tools: Vec::new(),
        signer: "ab".repeat(32),
        published: UnixMillis(1),
        visible_to: None,
        withdrawn: None,
    }
}

fn grant(tenant: &TenantId, credential: &CredentialId) -> Grant {
    let package = package("0.1.0");
    let slot = "api".parse().expect("name");
    Grant {
        id: GrantId::random(),
        tenant: tenant.clone(),
        package: package.name.clone(),
        approved: Approved::of(&package.manifest, package.digest, &package.signer, &[], Some(&slot)).into(),
        slot: Some(slot),
        credential: Some(credential.clone()),
        base_url: None,
        actions: None,
        created: UnixMillis(1),
    }
}

fn key(tenant: &TenantId, byte: u8) -> IdempotencyKey {
    IdempotencyKey { tenant: tenant.clone(), hash: [byte; 32] }
}

fn call() -> CallId {
    CallId::random()
}
