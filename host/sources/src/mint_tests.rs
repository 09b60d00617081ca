//! Minting over a transport that counts how often it is used.

use bytes::Bytes;
use http::HeaderMap;
use keybearer_contract::CallId;
use keybearer_contract::Digest;
use keybearer_contract::RunId;
use keybearer_gate::Cleared;
use keybearer_gate::CredentialDirectory;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialState;
use keybearer_gate::OauthClient;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Sealed;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_strongbox::MasterKey;
use keybearer_strongbox::Raw;
use keybearer_strongbox::SecretInput;
use keybearer_strongbox::Undo;
use keybearer_strongbox::Vessel;

use super::*;
use crate::way::EXCHANGE_MAX;

struct Records(Mutex<(Option<Sealed>, Option<Arc<CredentialRecord>>)>);

impl CredentialDirectory for Records {
    fn credential(&self, _: &TenantId, _: &CredentialId) -> Option<Arc<CredentialRecord>> {
        self.0.lock().1.clone()
    }

    fn data_key(&self, _: &TenantId) -> Option<Sealed> {
        self.0.lock().0.clone()
    }
}

/// What is stored.
const SECRET: &str = "client-secret-0123456789";

struct House {
    strongbox: Strongbox,
    records: Arc<Records>,
    record: Arc<CredentialRecord>,
    facts: Facts,
    mints: Mints,
    _folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self::with_url("https://login.example.com/token")
    }

    fn with_url(url: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let master = MasterKey::open_or_create(folder.path().join("master.key")).expect("made");
        let now = UnixMillis::now();
        let tenant = TenantId::random();
        let records = Arc::new(Records(Mutex::new((None, None))));
        let strongbox = Strongbox::new(master, records.clone());
        records.0.lock().0 = Some(strongbox.new_data_key(&tenant));
        let id = CredentialId::random();
        let kind = CredentialKind::OauthClientCredentials(OauthClient {
            scope: Some("read write".to_owned()),
            introspection_url: Some("https://login.example.com/introspect".parse().expect("canonical")),
            ..OauthClient::new(url.parse().expect("canonical"), "client")
        });
        let accepted = strongbox.accept(&tenant, &id, 1, &kind, SecretInput::new(SECRET.as_bytes().to_vec()));
        let accepted = accepted.unwrap_or_else(|refused| panic!("{refused}"));
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
        let facts = Facts {
            tenant,
            principal: PrincipalLabel::host(),
            run: RunId::random(),
            call: CallId::random(),
            tool: "a.b".parse().expect("tool"),
            package: Digest::of_package(b"", b""),
        };
        records.0.lock().1 = Some(record.clone());
        Self { strongbox, records, record, facts, mints: Mints::new(), _folder: folder }
    }

    fn selected(&self) -> Selected {
        self.strongbox.select(&self.facts.tenant, &self.record.id, UnixMillis::now()).expect("usable")
    }

    async fn mint(&self, endpoint: &Endpoint) -> Result<(), MintFault> {
        self.mint_until(endpoint, Instant::now() + Duration::from_secs(30)).await
    }

    async fn mint_until(&self, endpoint: &Endpoint, deadline: Instant) -> Result<(), MintFault> {
        let selected = self.selected();
        self.mints.mint(self.wanted(&selected, deadline), &self.strongbox, endpoint).await
    }

    fn wanted<'house>(&'house self, selected: &'house Selected, deadline: Instant) -> Wanted<'house> {
        Wanted { facts: &self.facts, record: &self.record, selected, watched: false, deadline, until: deadline }
    }
}

/// A token endpoint that takes its time and then answers this, or never.
struct Endpoint {
    asked: AtomicUsize,
    takes: Duration,
    answer: Result<(u16, &'static str), MintFault>,
}

impl Endpoint {
    fn new(status: u16, body: &'static str) -> Self {
        Self { asked: AtomicUsize::new(0), takes: Duration::from_millis(200), answer: Ok((status, body)) }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl crate::Keeper for Endpoint {}

impl Transport for Endpoint {
    async fn give_back(&self, _: Cleared, _: &Undo, _: Instant) -> Result<Raw, MintFault> {
        Err(MintFault::Unavailable)
    }

    async fn exchange(&self, request: Cleared, _: &Selected, _: &Vessel, _: Instant) -> Result<Raw, MintFault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.destination().host().as_str(), "login.example.com");
        tokio::time::sleep(self.takes).await;
        let (status, body) = self.answer.clone()?;
        Ok(Raw::new(status, HeaderMap::new(), vec![Bytes::from_static(body.as_bytes())], true))
    }
}

const TOKEN: &str = r#"{"access_token":"token-0123456789","token_type":"bearer","expires_in":3600}"#;

#[tokio::test(start_paused = true)]
async fn a03_calls_that_need_the_same_token_wait_for_one_request() {
    let house = House::new();
    let endpoint = Endpoint::new(200, TOKEN);
    let all: Vec<_> = (0..50).map(|_| house.mint(&endpoint)).collect();
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let together = std::future::poll_fn(|context| {
        all.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(minted) => {
                assert_eq!(minted, Ok(()));
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    together.await;
    assert_eq!(endpoint.asked(), 1);
    assert!(house.strongbox.is_ready(&house.selected(), UnixMillis::now()));
    assert_eq!(house.mint(&endpoint).await, Ok(()));
    assert_eq!(endpoint.asked(), 1);
    assert!(house.mints.flights.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a03_a_failure_is_everyones_answer_for_a_second_and_not_for_longer() {
    let house = House::new();
    let endpoint = Endpoint::new(503, "");
    assert_eq!(house.mint(&endpoint).await, Err(MintFault::Unavailable));
    for _ in 0..10 {
        assert_eq!(house.mint(&endpoint).await, Err(MintFault::Unavailable));
    }
    assert_eq!(endpoint.asked(), 1);
    tokio::time::advance(FAILURE_HOLDS).await;
    assert_eq!(house.mint(&Endpoint::new(200, TOKEN)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a03_an_endpoint_that_hangs_is_given_up_and_more_than_can_wait_are_turned_away() {
    let house = Arc::new(House::new());
    let endpoint = Arc::new(Endpoint { takes: Duration::from_secs(3600), ..Endpoint::new(200, TOKEN) });
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..WAITING_MAX + 44 {
        let (house, endpoint) = (house.clone(), endpoint.clone());
        waiting.spawn(async move { house.mint(&endpoint).await });
    }
    let began = Instant::now();
    let faults: Vec<_> = waiting.join_all().await.into_iter().map(|minted| minted.expect_err("it hangs")).collect();
    assert!(began.elapsed() <= EXCHANGE_MAX + FAILURE_HOLDS);
    assert_eq!(endpoint.asked(), 1);
    assert_eq!(faults.iter().filter(|fault| **fault == MintFault::Unavailable).count(), 44);
    assert_eq!(faults.iter().filter(|fault| **fault == MintFault::TimedOut).count(), WAITING_MAX);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_his_turn_to_the_next() {
    let house = House::new();
    let endpoint = Endpoint::new(200, TOKEN);
    let soon = Instant::now() + Duration::from_millis(10);
    assert_eq!(house.mint_until(&endpoint, soon).await, Err(MintFault::TimedOut));
    assert_eq!(house.mint(&endpoint).await, Ok(()));
    assert_eq!(endpoint.asked(), 2);

    let house = House::new();
    let endpoint = Endpoint::new(200, TOKEN);
    // Dropped in the middle: its call was stopped.
    assert!(tokio::time::timeout(Duration::from_millis(10), house.mint(&endpoint)).await.is_err());
    assert_eq!(house.mint(&endpoint).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a01_an_endpoint_that_refuses_is_told_apart_from_one_that_fails() {
    for (status, body, is_refused) in [
        (400, r#"{"error":"invalid_scope"}"#, true),
        (401, r#"{"error":"invalid_client","error_description":"secret canary"}"#, true),
        (403, "<html>", true),
        (404, "", true),
        (408, "", false),
        (429, "", false),
        (500, "", false),
        (302, "", false),
        (200, "{", false),
        (200, r#"{"access_token":"token-0123456789","token_type":"mac"}"#, false),
    ] {
        let house = House::new();
        let fault = house.mint(&Endpoint::new(status, body)).await.expect_err("no token");
        assert_eq!(matches!(fault, MintFault::Refused(_)), is_refused, "{status} {body}");
        assert!(is_refused || fault == MintFault::Unavailable, "{status} {body}");
        assert!(!format!("{fault} {fault:?}").contains("canary"));
    }
}

impl House {
    /// What is told on of an issuer's answer about a token that was minted, as a scope.
    async fn scope(&self, answer: &str) -> Option<String> {
        self.mint(&Endpoint::new(200, TOKEN)).await.expect("minted");
        let (selected, deadline) = (self.selected(), Instant::now() + Duration::from_secs(30));
        let wanted = self.wanted(&selected, deadline);
        let vessel = self.strongbox.minted_vessel(&selected, crate::MINTED, UnixMillis::now()).expect("minted");
        let endpoint = Endpoint::new(200, String::leak(answer.to_owned()));
        let said = crate::introspect(wanted, vessel, &self.strongbox, &endpoint).await;
        let said = said.expect("it can be asked").expect("it answers");
        assert!(said.is_active);
        said.scope
    }
}

// If it failed, an issuer that repeats what it is asked with would hand a stored value to whoever may ask for a check.
#[tokio::test(start_paused = true)]
async fn x10_what_an_issuer_repeats_of_a_credential_is_not_told_on() {
    let house = House::new();
    let basic = "Y2xpZW50OmNsaWVudC1zZWNyZXQtMDEyMzQ1Njc4OQ==";
    for repeated in ["token-0123456789", SECRET, "TOKEN-0123456789", basic, "client%2Dsecret%2D0123456789"] {
        let said = house.scope(&format!(r#"{{"active":true,"scope":"read {repeated} write"}}"#)).await;
        assert_eq!(said.as_deref(), Some("read [redacted] write"), "{repeated}");
    }
    let good = "read https://www.googleapis.com/auth/drive.file api://a/B.C";
    assert_eq!(house.scope(&format!(r#"{{"active":true,"scope":"{good}"}}"#)).await.as_deref(), Some(good));
    let long = "x".repeat(129);
    for odd in [r"a\u202eb", r#"a\"b"#, r"a\\b", "caf\u{e9}", &long] {
        assert_eq!(house.scope(&format!(r#"{{"active":true,"scope":"{odd}"}}"#)).await, None, "{odd}");
    }
}

// If it failed, what cannot be looked for would be told on because it was not found.
#[tokio::test(start_paused = true)]
async fn x10_nothing_is_told_on_while_a_stored_value_does_not_open() {
    let house = House::new();
    let mut record = (*house.record).clone();
    record.versions.push(VersionRecord {
        version: 2,
        sealed: Sealed(Arc::from([])),
        fingerprint: [0; 32],
        created: UnixMillis::now(),
        state: VersionState::Retired,
    });
    house.records.0.lock().1 = Some(Arc::new(record));
    assert_eq!(house.scope(r#"{"active":true,"scope":"read"}"#).await.as_deref(), Some("[redacted]"));
}

#[tokio::test(start_paused = true)]
async fn a_recipe_that_must_not_be_sent_is_not_sent() {
    let house = House::with_url("http://login.example.com/token");
    let endpoint = Endpoint::new(200, TOKEN);
    assert!(matches!(house.mint(&endpoint).await, Err(MintFault::NotCleared(_))));
    let house = House::new();
    let record = CredentialRecord { epoch: 2, ..(*house.record).clone() };
    let deadline = Instant::now() + Duration::from_secs(30);
    let selected = house.selected();
    let wanted =
        Wanted { facts: &house.facts, record: &record, selected: &selected, watched: false, deadline, until: deadline };
    let minted = house.mints.mint(wanted, &house.strongbox, &endpoint).await;
    assert_eq!(minted, Err(MintFault::Stale));
    assert_eq!(endpoint.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn r05_a_token_that_comes_after_a_revocation_is_not_kept() {
    let house = House::new();
    let endpoint = Endpoint::new(200, TOKEN);
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        house.strongbox.barrier_revoke(&house.facts.tenant, &house.record.id, 2).await;
    };
    let selected = house.selected();
    let (minted, ()) = tokio::join!(house.mint(&endpoint), revoking);
    assert_eq!(minted, Err(MintFault::Stale));
    assert!(!house.strongbox.is_ready(&selected, UnixMillis::now()));
}
