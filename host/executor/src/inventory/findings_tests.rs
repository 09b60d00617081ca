//! Tests of the findings: each just before its time and at it.

use keybearer_contract::Method;

use super::*;
use crate::inventory::IdentityKind;
use crate::inventory::plain;

const NOW: UnixMillis = UnixMillis(1_000 * DAY_MS);

fn ago(days: u64) -> UnixMillis {
    UnixMillis(NOW.0 - days * DAY_MS)
}

fn binding(text: &str) -> Vec<Binding> {
    serde_json::from_str(text).expect("parses")
}

fn used(first: UnixMillis, last: UnixMillis) -> Use {
    let text = serde_json::json!({"first": first, "last": last});
    serde_json::from_value(text).expect("parses")
}

fn used_at(first: UnixMillis, path: &str) -> Use {
    let known = serde_json::json!([{"host": "api.example", "port": 443, "method": "GET", "path": path}]);
    let text = serde_json::json!({"first": first, "last": NOW, "places": {"known": known}});
    serde_json::from_value(text).expect("parses")
}

fn identity(made: UnixMillis, rotated: UnixMillis) -> Identity {
    let expires = Some(UnixMillis(NOW.0 + DAY_MS));
    Identity {
        created: Some(made),
        expires,
        last_rotation: Some(rotated),
        ..plain(IdentityKind::Credential, "cred", "n")
    }
}

fn facts(allowed: &str) -> OfCredential {
    OfCredential { allowed: binding(allowed), holds_refresh_token: false, mints: false }
}

fn found(identity: &Identity) -> Vec<FindingKind> {
    identity.findings.iter().map(|finding| finding.what).collect()
}

#[test]
fn r14_what_is_unused_or_unrotated_for_ninety_days_is_found_and_not_a_day_before() {
    let look = |made, rotated, used: Option<Use>| found(&of_plain(identity(made, rotated), used.as_ref(), NOW));
    assert_eq!(look(ago(89), ago(89), Some(used(ago(89), ago(89)))), []);
    assert_eq!(look(ago(400), ago(1), Some(used(ago(400), ago(90)))), [FindingKind::Unused]);
    assert_eq!(look(ago(400), ago(90), Some(used(ago(400), ago(1)))), [FindingKind::Unrotated]);
    assert_eq!(look(ago(6), ago(6), None), []);
    assert_eq!(look(ago(7), ago(7), None), [FindingKind::NeverUsed], "R14: never used since it was created");
    assert_eq!(look(ago(120), ago(120), None), [FindingKind::NeverUsed, FindingKind::Unrotated]);
    // A clock that was set back finds nothing, and does not fall over.
    let later = UnixMillis(NOW.0 + DAY_MS);
    assert_eq!(look(later, later, Some(used(later, later))), []);
}

#[test]
fn a_binding_that_is_wider_than_what_was_used_is_found_with_the_narrower_one() {
    let wide = r#"[{"host": "api.example", "methods": ["GET", "POST"], "paths": ["/{rest...}"]}]"#;
    let look = |allowed: &str, used: &Use| of_credential(identity(ago(20), ago(20)), &facts(allowed), Some(used), NOW);
    let seen = used_at(ago(7), "/v1/refunds");
    let wider = look(wide, &seen);
    assert_eq!(found(&wider), [FindingKind::WideBinding]);
    let narrower = wider.used_binding.expect("one is proposed");
    assert_eq!((&*narrower[0].methods, narrower[0].paths[0].as_str()), (&[Method::Get][..], "/v1/refunds"));
    // What is as narrow as its use is no finding; nor is one that was watched for a few days only.
    let exact = r#"[{"host": "api.example", "methods": ["GET"], "paths": ["/v1/refunds"]}]"#;
    assert_eq!(found(&look(exact, &seen)), []);
    assert_eq!(found(&look(wide, &used_at(ago(6), "/v1/refunds"))), []);
    for other in [exact.replace("GET", "POST"), exact.replace("api.", "other."), exact.replace("refunds", "{id}")] {
        assert_eq!(found(&look(&other, &seen)), [FindingKind::WideBinding], "{other}");
    }
}

#[test]
fn long_lives_and_what_is_overdue_are_found() {
    let look =
        |identity: Identity, facts: &OfCredential, used: &Use| found(&of_credential(identity, facts, Some(used), NOW));
    let (plain, fresh) = (facts("[]"), used(ago(1), NOW));
    let with = |due, expires| Identity { rotation_due: Some(due), expires: Some(expires), ..identity(ago(1), ago(1)) };
    let (past, future) = (ago(1), UnixMillis(NOW.0 + DAY_MS));
    assert_eq!(look(with(future, future), &plain, &fresh), []);
    assert_eq!(look(with(past, future), &plain, &fresh), [FindingKind::RotationOverdue]);
    assert_eq!(look(with(future, NOW), &plain, &fresh), [FindingKind::Expired]);

    let minted = |life_s| Use { minted_life_s: Some(life_s), ..fresh.clone() };
    let mints = OfCredential { mints: true, ..facts("[]") };
    assert_eq!(look(with(future, future), &mints, &minted(900)), []);
    assert_eq!(look(with(future, future), &mints, &minted(901)), [FindingKind::LongAccessToken]);
    assert_eq!(look(with(future, future), &plain, &minted(901)), [], "what it fetched is no access token");

    let refresh = OfCredential { holds_refresh_token: true, ..facts("[]") };
    let until = |days| UnixMillis(NOW.0 + days * DAY_MS);
    assert_eq!(look(with(future, until(29)), &refresh, &fresh), []);
    assert_eq!(look(with(future, until(30)), &refresh, &fresh), [FindingKind::LongRefreshToken]);
}

#[test]
fn what_nobody_explained_or_never_ends_is_found_and_rows_from_before_go_by_their_label() {
    let said = Onboarding { owner: "ops".to_owned(), justification: "backups".to_owned() };
    let told = of_ours(identity(ago(3), ago(3)), &said, None, NOW);
    assert_eq!((found(&told), told.owner.as_str(), told.age_days), (vec![], "ops", Some(3)));
    let before = of_ours(identity(ago(3), ago(3)), &Onboarding::default(), None, NOW);
    assert_eq!((found(&before), before.owner.as_str()), (vec![FindingKind::Unexplained], "n"));
    let endless = Identity { expires: None, ..identity(ago(3), ago(3)) };
    let endless = of_credential(endless, &facts("[]"), None, NOW);
    assert_eq!(found(&endless), [FindingKind::NoExpiry]);
}
