//! A request armed by the real strongbox, with a real lease, on its way out: what the upstream sees, and
//! when a rotation or a revocation may be acknowledged.

use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::Digest;
use keybearer_contract::Method;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Auth;
use keybearer_gate::CredentialDirectory;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Facts;
use keybearer_gate::Ingredient;
use keybearer_gate::OauthClient;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Sealed;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Ledger;
use keybearer_ledger::LedgerConfig;
use keybearer_ledger::Purpose;
use keybearer_strongbox::Armed;
use keybearer_strongbox::MasterKey;
use keybearer_strongbox::SecretInput;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Vessel;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::SendReason;
use crate::fixture::*;

#[derive(Default)]
struct Records {
    credential: Mutex<Option<Arc<CredentialRecord>>>,
    data_key: Mutex<Option<Sealed>>,
}

impl CredentialDirectory for Records {
    fn credential(&self, _: &TenantId, _: &CredentialId) -> Option<Arc<CredentialRecord>> {
        self.credential.lock().clone()
    }

    fn data_key(&self, _: &TenantId) -> Option<Sealed> {
        self.data_key.lock().clone()
    }
}

/// A tenant with one OAuth client, and what it takes to arm its token request.
struct House {
    strongbox: Strongbox,
    ledger: Ledger,
    record: Arc<CredentialRecord>,
    facts: Facts,
    _folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let master = MasterKey::open_or_create(folder.path().join("master.key")).expect("made");
        let records = Arc::new(Records::default());
        let strongbox = Strongbox::new(master, records.clone());
        let (tenant, id) = (TenantId::random(), CredentialId::random());
        *records.data_key.lock() = Some(strongbox.new_data_key(&tenant));
        let token_url = "https://api.example.com/token".parse().expect("canonical");
        let kind = CredentialKind::OauthClientCredentials(OauthClient::new(token_url, "client"));
        let value = SecretInput::new(b"canary-0123456789".to_vec());
        let accepted = strongbox.accept(&tenant, &id, 1, &kind, value).unwrap_or_else(|refused| panic!("{refused}"));
        let now = UnixMillis::now();
        let version = VersionRecord {
            version: 1,
            sealed: accepted.sealed,
            fingerprint: accepted.fingerprint,
            created: now,
            state: VersionState::Current,
        };
        let record = Arc::new(CredentialRecord {
            id,
            tenant: tenant.clone(),
            name: "test".to_owned(),
            kind,
            owner: "somebody".to_owned(),
            justification: "a test".to_owned(),
            expires: None,
            state: CredentialState::Active,
            epoch: 1,
            created: now,
            versions: vec![version],
            overlaps: Vec::new(),
            renewal: None,
            registration: None,
            consent: None,
            terms: keybearer_gate::Terms::default(),
        });
        *records.credential.lock() = Some(record.clone());
        let config = LedgerConfig::new(folder.path().join("ledger"), folder.path().join("anchor"));
        let ledger = Ledger::open(config).expect("opened").0;
        let facts = Facts {
            tenant,
            principal: PrincipalLabel::host(),
            run: RunId::random(),
            call: CallId::random(),
            tool: "a.b".parse().expect("tool"),
            package: Digest::of_package(b"", b""),
        };
        Self { strongbox, ledger, record, facts, _folder: folder }
    }

    async fn armed(&self) -> (Armed, Selected) {
        let now = UnixMillis::now();
        let url = format!("https://{HOST}/token").parse().expect("canonical");
        let exchange = Exchange::new(Method::Post, url)
            .auth(Auth::Client { id: "client".to_owned(), secret: Ingredient::Stored })
            .body(ExchangeBody::Form(vec![("grant_type", "client_credentials".into())]));
        let cleared = keybearer_gate::clear_exchange(&self.facts, &self.record, exchange).expect("cleared");
        let selected = self.strongbox.select(&self.facts.tenant, &self.record.id, now).expect("usable");
        let details = IntentDetails {
            version: Some(selected.version()),
            epoch: Some(selected.epoch()),
            address: ([127, 0, 0, 1], 443).into(),
            purpose: Purpose::Mint,
            svid: None,
            withheld: &keybearer_gate::NothingWithheld,
        };
        let (intent, _) = self.ledger.intend(&cleared, details).await.unwrap_or_else(|error| panic!("{error}"));
        let lease = self.strongbox.lease_source(selected.clone(), &Vessel::default(), &intent, now);
        let lease = lease.unwrap_or_else(|refused| panic!("{refused}"));
        let armed = keybearer_strongbox::place(cleared, intent, lease).unwrap_or_else(|refused| panic!("{refused}"));
        (armed, selected)
    }
}

const TOKEN: &str = r#"{"access_token":"token-0123456789","token_type":"Bearer","expires_in":3600}"#;

fn token_answer() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{TOKEN}", TOKEN.len())
}

#[tokio::test]
async fn an_armed_request_arrives_with_its_credential_and_its_answer_goes_to_the_strongbox() {
    let house = House::new();
    let authority = Authority::new();
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), |mut wire| async move {
        wire.head().await;
        wire.say(token_answer()).await;
        wire.until_closed().await;
    })
    .await;
    let egress = egress(&upstream, &authority);
    let (armed, selected) = house.armed().await;
    let vetted = egress.vet(armed.destination(), limits().deadline).await.expect("vetted");
    let raw = egress.send(armed, vetted, limits()).await.unwrap_or_else(|fault| panic!("{fault}"));
    let url = format!("https://{HOST}/token").parse().expect("canonical");
    let shape = Exchange::new(Method::Post, url).holds("token", &["access_token"]).answer;
    let mut vessel = Vessel::default();
    assert!(house.strongbox.read_answer(raw, &shape, &selected, &mut vessel).is_ok());
    assert!(vessel.has("token"));
    let (_, head) = upstream.heads().remove(0);
    let body = "grant_type=client_credentials";
    for line in [
        "POST /token HTTP/1.1\r\n",
        "host: api.example.com\r\n",
        // base64 of `client:canary-0123456789`
        "authorization: Basic Y2xpZW50OmNhbmFyeS0wMTIzNDU2Nzg5\r\n",
        &format!("content-length: {}\r\n", body.len()),
    ] {
        assert!(head.contains(line), "{line:?} in {head:?}");
    }
}

#[tokio::test]
async fn r05_a_rotation_does_not_wait_for_an_answer_once_the_credential_has_left() {
    let house = House::new();
    let authority = Authority::new();
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), {
        let (arrived, go_on) = (arrived.clone(), go_on.clone());
        move |mut wire| {
            let (arrived, go_on) = (arrived.clone(), go_on.clone());
            async move {
                wire.head().await;
                arrived.notify_one();
                go_on.notified().await;
                wire.say(token_answer()).await;
                wire.until_closed().await;
            }
        }
    })
    .await;
    let egress = egress(&upstream, &authority);
    let (armed, _) = house.armed().await;
    let vetted = egress.vet(armed.destination(), limits().deadline).await.expect("vetted");
    let rotating = async {
        arrived.notified().await;
        house.strongbox.barrier_rotate(&house.facts.tenant, &house.record.id, 2).await;
        house.strongbox.barrier_revoke(&house.facts.tenant, &house.record.id, 2).await;
        go_on.notify_one();
    };
    let (answer, ()) = tokio::join!(egress.send(armed, vetted, limits()), rotating);
    assert!(answer.is_ok());
}

#[tokio::test]
async fn r05_a_revocation_stops_a_request_that_is_still_dialling() {
    let house = House::new();
    let arrived = Arc::new(Notify::new());
    // Takes the connection and does not speak TLS: no byte of the credential can leave.
    let upstream = Upstream::start(None, {
        let arrived = arrived.clone();
        move |mut wire| {
            let arrived = arrived.clone();
            async move {
                arrived.notify_one();
                wire.until_closed().await;
            }
        }
    })
    .await;
    let egress = egress(&upstream, &Authority::new());
    let (armed, _) = house.armed().await;
    let vetted = egress.vet(armed.destination(), limits().deadline).await.expect("vetted");
    let revoking = async {
        arrived.notified().await;
        house.strongbox.barrier_revoke(&house.facts.tenant, &house.record.id, 2).await
    };
    let (answer, told) = tokio::join!(egress.send(armed, vetted, limits()), revoking);
    let fault = answer.err().expect("it was revoked");
    assert_eq!((fault.reason, fault.delivery, told), (SendReason::Cancelled, Delivery::NotSent, 1));
}

#[tokio::test]
async fn p4_an_armed_request_goes_nowhere_but_to_its_own_vetted_destination() {
    let house = House::new();
    let authority = Authority::new();
    let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), token_answer()).await;
    let egress = egress(&upstream, &authority);
    for elsewhere in ["http://api.example.com/", "https://api.example.com:8443/"] {
        let mut config = upstream.config();
        config.dangerous.pin[1].port = destination(elsewhere).port();
        let other = egress_with(config, &authority);
        let (armed, _) = house.armed().await;
        let vetted = other.vet(&destination(elsewhere), limits().deadline).await.expect("vetted");
        let fault = egress.send(armed, vetted, limits()).await.err().expect("refused");
        assert_eq!((fault.reason, fault.delivery), (SendReason::Refused, Delivery::NotSent));
    }
    assert_eq!(upstream.accepted(), 0);
    // The guards went with the requests.
    house.strongbox.barrier_rotate(&house.facts.tenant, &house.record.id, 2).await;
}
