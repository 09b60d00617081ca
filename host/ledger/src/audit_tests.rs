//! Tests of the detector: what was planted is found, and what is right is not. Every ledger here is
//! written by the ledger itself.

use keybearer_gate::Facts;
use keybearer_gate::PrincipalLabel;

use super::*;
use crate::CallOutcome;
use crate::DispatchEntry;
use crate::DispatchOutcome;
use crate::Fault;
use crate::IntentDetails;
use crate::Ledger;
use crate::testing::Place;
use crate::testing::cleared_for;
use crate::testing::details;
use crate::testing::facts;
use crate::testing::run;

struct Scene {
    place: Place,
    ledger: Ledger,
    facts: Facts,
    credential: CredentialId,
}

impl Scene {
    fn set() -> Self {
        let place = Place::new();
        let ledger = place.open().0;
        let scene = Self { place, ledger, facts: facts(), credential: CredentialId::random() };
        scene.raise(ActKind::CredentialStored, Some(1), 1);
        scene
    }

    fn act(&self, what: ActKind, subject: &str, version: Option<u32>, epoch: Option<u64>) {
        self.noted(Some(&self.facts.tenant), what, subject, "", (version, epoch));
    }

    /// An act with a note: of a tenant, or of the operator's own.
    fn noted(
        &self,
        tenant: Option<&TenantId>,
        what: ActKind,
        subject: &str,
        note: &str,
        (version, epoch): (Option<u32>, Option<u64>),
    ) {
        let act = Act {
            tenant: tenant.cloned(),
            principal: PrincipalLabel::operator(),
            what,
            subject: subject.to_owned(),
            version,
            epoch,
            commit: None,
            note: note.to_owned(),
        };
        run(self.ledger.act(act)).expect("recorded");
    }

    fn raise(&self, what: ActKind, version: Option<u32>, epoch: u64) {
        self.act(what, self.credential.as_str(), version, Some(epoch));
    }

    fn intend(&self, version: u32, epoch: u64) -> DispatchEntry {
        let details = IntentDetails { version: Some(version), epoch: Some(epoch), ..details() };
        let (intent, entry) =
            run(self.ledger.intend(&cleared_for(&self.facts, &self.credential), details)).expect("recorded");
        drop(intent);
        entry
    }

    fn send(&self, version: u32, epoch: u64) {
        run(self.intend(version, epoch).close(DispatchOutcome::answered(200))).expect("recorded");
    }

    fn refuse(&self, version: u32, epoch: u64) {
        let outcome = DispatchOutcome::failed(Fault::Stale, Delivery::NotSent);
        run(self.intend(version, epoch).close(outcome)).expect("recorded");
    }

    fn call(&self, outcome: CallOutcome) {
        let facts = Facts { call: CallId::random(), ..self.facts.clone() };
        let receipt = run(async { self.ledger.begin_call(&facts).await?.close(outcome).await }).expect("recorded");
        drop(receipt);
    }

    fn audited(&self) -> Audit {
        self.ledger.checkpoint().expect("all is written");
        audit(&self.place.dir(), None).expect("read")
    }

    fn found(&self) -> Vec<Misuse> {
        let audited = self.audited();
        audited.findings.iter().map(|finding| finding.misuse).collect()
    }
}

#[test]
fn r15_a_use_of_an_old_version_after_its_rotation_was_acknowledged_is_found() {
    // If this failed, nobody would learn that the guards had a hole.
    let scene = Scene::set();
    scene.send(1, 1);
    scene.raise(ActKind::CredentialRotated, Some(2), 2);
    scene.send(2, 2);
    assert_eq!(scene.found(), []);
    scene.send(1, 1);
    let audited = scene.audited();
    let [finding] = audited.findings.as_slice() else { panic!("{audited:?}") };
    assert_eq!((finding.misuse, finding.version, finding.epoch), (Misuse::StaleVersion, Some(1), Some(1)));
    assert_eq!(
        (finding.subject.as_str(), finding.tenant.as_ref()),
        (scene.credential.as_str(), Some(&scene.facts.tenant))
    );
    assert!(finding.after.is_some_and(|after| after < finding.seq) && finding.dispatch.is_some());
    let other = audit(&scene.place.dir(), Some(&TenantId::random())).expect("read");
    assert_eq!(other.findings, [], "another tenant's is not shown");
}

#[test]
fn r15_what_was_refused_under_its_guard_and_what_was_on_its_way_are_no_findings() {
    let scene = Scene::set();
    let on_its_way = scene.intend(1, 1);
    // The store has a rotation before the ledger does.
    scene.send(2, 2);
    scene.raise(ActKind::CredentialRotated, Some(2), 2);
    scene.refuse(1, 1);
    run(on_its_way.close(DispatchOutcome::answered(200))).expect("recorded");
    scene.raise(ActKind::CredentialRolledBack, Some(3), 3);
    scene.send(3, 3);
    scene.raise(ActKind::VersionDestroyed, Some(1), 3);
    scene.send(3, 3);
    assert_eq!(scene.found(), []);
}

#[test]
fn r15_a_revoked_credential_a_wrong_version_an_epoch_that_goes_back_and_a_missing_outcome_are_found() {
    let scene = Scene::set();
    scene.send(7, 1);
    scene.send(9, 2);
    scene.raise(ActKind::CredentialRotated, Some(2), 2);
    scene.raise(ActKind::CredentialRevoked, None, 3);
    scene.send(2, 3);
    scene.raise(ActKind::CredentialRevoked, None, 3);
    drop(scene.intend(2, 2));
    let open = scene.intend(2, 2);
    let expected =
        [Misuse::WrongVersion, Misuse::WrongVersion, Misuse::StaleVersion, Misuse::EpochWentBack, Misuse::Unproven];
    assert_eq!(scene.found(), [expected.as_slice(), &[Misuse::Unproven]].concat());
    drop(open);
}

#[test]
fn r15_calls_of_what_was_revoked_are_found_unless_they_were_cut_off_or_it_was_restored() {
    let good = CallOutcome::default;
    let cut = || CallOutcome { problem: Some(keybearer_contract::Code::Cancelled), ..CallOutcome::default() };
    for (what, restored, subject, misuse) in [
        (
            ActKind::TenantSuspended,
            Some(ActKind::TenantResumed),
            |facts: &Facts| facts.tenant.to_string(),
            Misuse::SuspendedTenant,
        ),
        (
            ActKind::PrincipalRevoked,
            Some(ActKind::PrincipalRestored),
            |facts| facts.principal.to_string(),
            Misuse::RevokedPrincipal,
        ),
        (ActKind::ToolRevoked, Some(ActKind::ToolRestored), |facts| facts.tool.to_string(), Misuse::RevokedTool),
        (
            ActKind::PackageWithdrawn,
            Some(ActKind::PackagePublished),
            |facts| facts.package.to_string(),
            Misuse::RevokedTool,
        ),
    ] as [(_, _, fn(&Facts) -> String, _); 4]
    {
        let scene = Scene::set();
        let subject = subject(&scene.facts);
        scene.call(good());
        scene.act(what, &subject, None, None);
        scene.call(cut());
        scene.refuse(1, 1);
        assert_eq!(scene.found(), [], "{what:?}");
        scene.call(good());
        scene.send(1, 1);
        assert_eq!(scene.found(), [misuse, misuse], "{what:?}");
        if let Some(restored) = restored {
            scene.act(restored, &subject, None, None);
            scene.call(good());
            scene.send(1, 1);
            assert_eq!(scene.found().len(), 2, "{restored:?}");
        }
    }
}

#[test]
fn r11_r15_a_use_of_a_quarantined_tool_is_found_until_every_incident_that_covers_it_is_closed() {
    // If this failed, nobody would learn that a hostile tool went on while its incident was open.
    let good = CallOutcome::default;
    let other = TenantId::random();
    let names: [fn(&Facts) -> String; 3] =
        [|facts| facts.tool.to_string(), |facts| facts.tool.package.to_string(), |_| EVERY_TOOL.to_owned()];
    for name in names {
        for whose in [Some("mine"), Some("another's"), None] {
            let scene = Scene::set();
            let name = name(&scene.facts);
            let tenant = whose.map(|whose| if whose == "mine" { &scene.facts.tenant } else { &other });
            let act = |what, subject: &str, note: &str| scene.noted(tenant, what, subject, note, (None, None));
            scene.call(good());
            act(ActKind::Quarantined, &name, "inc_a");
            act(ActKind::Quarantined, &name, "inc_b");
            scene.call(CallOutcome { problem: Some(keybearer_contract::Code::Revoked), ..good() });
            scene.refuse(1, 1);
            assert_eq!(scene.found(), [], "{name} {whose:?}");
            scene.call(good());
            scene.send(1, 1);
            let found = if whose == Some("another's") { vec![] } else { vec![Misuse::QuarantinedTool; 2] };
            assert_eq!(scene.found(), found, "{name} {whose:?}");
            act(ActKind::IncidentClosed, "inc_a", "a cause");
            scene.call(good());
            let found = if whose == Some("another's") { vec![] } else { vec![Misuse::QuarantinedTool; 3] };
            assert_eq!(scene.found(), found, "the other incident is open: {name} {whose:?}");
            act(ActKind::IncidentClosed, "inc_b", "a cause");
            scene.call(good());
            scene.send(1, 1);
            assert_eq!(scene.found(), found, "both are closed: {name} {whose:?}");
        }
    }
}

#[test]
fn r15_w10_a_run_of_a_package_whose_signer_was_revoked_is_found() {
    // If this failed, nobody would learn that what a stolen key signed ran on.
    let (stolen, good) = ("5".repeat(64), "7".repeat(64));
    let scene = Scene::set();
    let package = scene.facts.package.to_string();
    let act = |what, subject: &str, note: &str| scene.noted(None, what, subject, note, (None, None));
    act(ActKind::PackagePublished, &package, &stolen);
    act(ActKind::SignerRevoked, &good, "");
    scene.call(CallOutcome::default());
    scene.send(1, 1);
    assert_eq!(scene.found(), [], "another signer");
    act(ActKind::SignerRevoked, &stolen, "");
    scene.refuse(1, 1);
    scene.call(CallOutcome { problem: Some(keybearer_contract::Code::Revoked), ..CallOutcome::default() });
    assert_eq!(scene.found(), []);
    scene.call(CallOutcome::default());
    scene.send(1, 1);
    assert_eq!(scene.found(), [Misuse::RevokedSigner, Misuse::RevokedSigner]);
    act(ActKind::PackagePublished, &package, &"9".repeat(64));
    scene.call(CallOutcome::default());
    assert_eq!(scene.found().len(), 2, "signed by somebody else since");
}

#[test]
fn c08_the_last_commit_that_an_act_named_is_known_at_the_next_start_from_any_segment() {
    // If this failed, a backup of the store from before a token was revoked would bring the token back.
    let place = Place::new();
    let (ledger, recovery) = place.open();
    assert_eq!(recovery.commit, 0);
    let act = |commit| Act {
        tenant: None,
        principal: PrincipalLabel::operator(),
        what: ActKind::TokenRevoked,
        subject: "a token".to_owned(),
        version: None,
        epoch: None,
        commit,
        note: "x".repeat(400),
    };
    run(ledger.act(act(Some(41)))).expect("recorded");
    for _ in 0..100 {
        run(ledger.act(act(None))).expect("recorded");
    }
    ledger.shutdown();
    drop(ledger);
    assert!(place.segments().len() > 2, "the act stands in an earlier segment");
    assert_eq!(place.open().1.commit, 41);
}
