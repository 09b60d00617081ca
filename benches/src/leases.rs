//! What holding nothing costs: the look at version and epoch before a request, and a lease, which takes a use
//! guard, looks again and opens the sealed value. Each dispatch with a credential pays for both; a cache of open
//! values would save the second, and would be one more place where a revoked one could live.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::Method;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Exchange;
use keybearer_gate::Facts;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Sealed;
use keybearer_gate::Terms;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Ledger;
use keybearer_ledger::LedgerConfig;
use keybearer_ledger::Purpose;
use keybearer_strongbox::MasterKey;
use keybearer_strongbox::SecretInput;
use keybearer_strongbox::Strongbox;
use parking_lot::RwLock;

use crate::breakdown::repeat;
use crate::report::Report;

/// One tenant with one credential, as the store's image answers.
#[derive(Default)]
struct Records {
    record: RwLock<Option<Arc<CredentialRecord>>>,
    data_key: RwLock<Option<Sealed>>,
}

impl CredentialDirectory for Records {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        let record = self.record.read();
        record.as_ref().filter(|record| record.tenant == *tenant && record.id == *id).cloned()
    }

    fn data_key(&self, _: &TenantId) -> Option<Sealed> {
        self.data_key.read().clone()
    }
}

/// Measures both, and writes the rows.
///
/// # Errors
/// If one of them fails.
pub(crate) async fn measure(slice: Duration, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let records = Arc::new(Records::default());
    let master = MasterKey::open_or_create(folder.path().join("master.key"))?;
    let strongbox = Strongbox::new(master, Arc::clone(&records) as _);
    let (tenant, id, now) = (TenantId::random(), CredentialId::random(), UnixMillis::now());
    *records.data_key.write() = Some(strongbox.new_data_key(&tenant));
    let value = SecretInput::new(keybearer_tests::canary("bench-").into_bytes());
    let accepted = strongbox.accept(&tenant, &id, 1, &CredentialKind::Bearer, value)?;
    let record = CredentialRecord {
        id: id.clone(),
        tenant: tenant.clone(),
        name: "bench".to_owned(),
        kind: CredentialKind::Bearer,
        owner: "bench".to_owned(),
        justification: "bench".to_owned(),
        expires: None,
        state: CredentialState::Active,
        epoch: 1,
        created: now,
        versions: vec![VersionRecord {
            version: 1,
            sealed: accepted.sealed,
            fingerprint: accepted.fingerprint,
            created: now,
            state: VersionState::Current,
        }],
        overlaps: Vec::new(),
        renewal: None,
        registration: None,
        consent: None,
        terms: Terms::default(),
    };
    let config = LedgerConfig::new(folder.path().join("ledger"), folder.path().join("anchor"));
    let (ledger, _) = Ledger::open(config)?;
    let exchange = Exchange::new(Method::Get, "https://bench.example/".parse()?);
    let facts = facts(&tenant)?;
    let cleared = keybearer_gate::clear_exchange(&facts, &record, exchange).map_err(|why| anyhow::anyhow!("{why}"))?;
    *records.record.write() = Some(Arc::new(record));

    let select = || strongbox.select(&tenant, &id, now);
    let selected = select()?;
    let details = IntentDetails {
        version: Some(1),
        epoch: Some(1),
        address: ([192, 0, 2, 1], 443).into(),
        purpose: Purpose::Guest,
        svid: None,
        withheld: &keybearer_gate::NothingWithheld,
    };
    let (intent, entry) = ledger.intend(&cleared, details).await?;
    report.part("part.recheck.us", repeat(slice, || select().map(drop).map_err(Into::into))?);
    let lease = || strongbox.lease(selected.clone(), &intent, now).map(drop).map_err(Into::into);
    report.part("part.lease_hit.us", repeat(slice, lease)?);
    drop(entry);
    Ok(())
}

fn facts(tenant: &TenantId) -> anyhow::Result<Facts> {
    Ok(Facts {
        tenant: tenant.clone(),
        principal: PrincipalLabel::host(),
        run: RunId::random(),
        call: CallId::random(),
        tool: "bench.lease".parse().ok().context("a name")?,
        package: Digest::of_package(b"", b""),
    })
}
