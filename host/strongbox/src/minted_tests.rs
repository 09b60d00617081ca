//! Tests of minted tokens: what a token endpoint answers is used, scrubbed and told to nobody.

use bytes::Bytes;
use http::HeaderMap;
use keybearer_contract::CredentialId;
use keybearer_contract::Method;
use keybearer_contract::TenantId;
use keybearer_gate::AnswerShape;

use super::*;
use crate::AnswerRefused;
use crate::LeaseRefused;
use crate::Raw;
use crate::Told;
use crate::fixture::House;
use crate::fixture::NOW;
use crate::fixture::facts;
use crate::fixture::oauth;
use crate::lease::Leased;

const TOKEN: &str = "minted-token-0123456789";

fn house_with_recipe() -> (House, TenantId, CredentialId) {
    let house = House::new();
    let tenant = house.tenant();
    let recipe = house.credential(&tenant, oauth("id"), "client-secret-0123456789");
    (house, tenant, recipe)
}

fn answer(status: u16, body: &str) -> Raw {
    Raw::new(status, HeaderMap::new(), vec![Bytes::copy_from_slice(body.as_bytes())], true)
}

/// What a token endpoint's answer holds.
fn shape() -> AnswerShape {
    let url = "https://login.example.com/token".parse().expect("canonical");
    Exchange::new(Method::Post, url)
        .holds("access_token", &["access_token"])
        .tells("expires_in", &["expires_in"])
        .fails_with(&["error"], &["invalid_client"])
        .answer
}

fn token(extra: &str) -> String {
    format!(r#"{{"access_token":"{TOKEN}","token_type":"bearer"{extra}}}"#)
}

/// Reads an answer and keeps what it gives, as the code of a source does.
fn mint(house: &House, selected: &Selected, body: &str) -> Result<Minted, KeepRefused> {
    let mut vessel = house.strongbox.vessel(selected);
    let told = house.strongbox.read_answer(answer(200, body), &shape(), selected, &mut vessel).expect("read");
    let life_s = told.number("expires_in").expect("a number");
    let yielded = Yield { parts: vec!["access_token"], life_s, ..Yield::default() };
    house.strongbox.keep(selected, &vessel, yielded, &facts(selected.tenant()), NOW)
}

fn life(body: &str) -> Result<u64, KeepRefused> {
    let (house, tenant, recipe) = house_with_recipe();
    Ok((mint(&house, &house.selected(&tenant, &recipe), body)?.expires.0 - NOW.0) / 1_000)
}

fn read(status: u16, body: &str) -> Result<Told, AnswerRefused> {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    house.strongbox.read_answer(answer(status, body), &shape(), &selected, &mut Vessel::default())
}

#[test]
fn a_token_is_used_until_shortly_before_it_ends_and_never_longer_than_an_hour() {
    assert_eq!(life(&token(r#","expires_in":600"#)), Ok(570));
    assert_eq!(life(&token(r#","expires_in":"600""#)), Ok(570));
    assert_eq!(life(&token(r#","expires_in":600.0"#)), Ok(570));
    assert_eq!(life(&token(r#","expires_in":20"#)), Ok(15));
    assert_eq!(life(&token(r#","expires_in":0"#)), Ok(0));
    assert_eq!(life(&token("")), Ok(270));
    assert_eq!(life(&token(r#","expires_in":18446744073709551615"#)), Ok(3_600));
    assert_eq!(life(&token(r#","refresh_token":"x","id_token":"y","scope":"z""#)), Ok(270));
}

#[test]
fn a01_an_answer_that_is_not_what_was_asked_for_gives_nothing() {
    for body in ["", "[]", "{", r#"{"token_type":"Bearer"}"#, r#"{"access_token":7}"#, r#"{"access_token":null}"#] {
        assert_eq!(read(200, body), Err(AnswerRefused::Malformed), "{body}");
    }
    for extra in [r#","expires_in":{}"#, r#","access_token":"0123456789abcdef""#, r#","expires_in":"a\nb""#] {
        assert_eq!(read(200, &token(extra)), Err(AnswerRefused::Malformed), "{extra}");
    }
    let told = read(200, &token(r#","expires_in":-1"#)).expect("read");
    assert_eq!(told.number("expires_in"), Err(AnswerRefused::Malformed));
    for unfit in ["short", "0123456789 abcdef", "0123456789\\r\\nabcdef", "0123456789abcdé", &"x".repeat(9_000)] {
        assert_eq!(life(&token("").replace(TOKEN, unfit)), Err(KeepRefused::Unfit), "{unfit}");
    }
    assert_eq!(read(200, &token("").replace(TOKEN, &"x".repeat(40_000))), Err(AnswerRefused::Malformed));
    assert_eq!(read(200, &token("").replace(TOKEN, &"x".repeat(70_000))), Err(AnswerRefused::TooLarge));
}

#[test]
fn p10_a_refusal_repeats_nothing_of_the_answer_but_a_known_code() {
    let code = Some("invalid_client");
    assert_eq!(read(401, r#"{"error":"invalid_client"}"#), Err(AnswerRefused::Status { status: 401, code }));
    let body = format!(r#"{{"error":"{TOKEN}"}}"#);
    assert_eq!(read(400, &body), Err(AnswerRefused::Status { status: 400, code: None }));
    assert_eq!(read(206, &token("")), Err(AnswerRefused::Status { status: 206, code: None }));
}

#[test]
fn a04_an_older_version_than_was_seen_is_not_kept() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    let keep = |source_version| {
        let mut vessel = Vessel::default();
        house.strongbox.read_answer(answer(200, &token("")), &shape(), &selected, &mut vessel).expect("read");
        let yielded = Yield { parts: vec!["access_token"], source_version: Some(source_version), ..Yield::default() };
        house.strongbox.keep(&selected, &vessel, yielded, &facts(&tenant), NOW).map(drop)
    };
    assert_eq!(keep(3), Ok(()));
    assert_eq!(keep(2), Err(KeepRefused::Older));
    assert_eq!(keep(3), Ok(()));
    assert_eq!(keep(4), Ok(()));
}

#[test]
fn what_is_minted_within_a_run_is_for_this_run_and_is_wiped_with_it() {
    let (house, tenant, recipe) = house_with_recipe();
    let run = RunId::random();
    let within = house.selected(&tenant, &recipe).within(Some(run.clone()));
    mint(&house, &within, &token("")).expect("minted");
    assert!(house.strongbox.is_ready(&within, NOW));
    assert!(!house.strongbox.is_ready(&house.selected(&tenant, &recipe), NOW));
    assert!(!house.strongbox.is_ready(&within.clone().within(Some(RunId::random())), NOW));
    assert!(house.strongbox.end_run(&house.tenant(), &run).is_empty(), "another tenant's run of that id is none");
    assert!(house.strongbox.is_ready(&within, NOW));
    house.strongbox.end_run(&tenant, &run);
    assert!(!house.strongbox.is_ready(&within, NOW));
    assert!(house.strongbox.minted.all(&within.guard_key()).is_empty());
}

// If it failed, a session that was made for one slot would sign for another, which may do less.
#[test]
fn p09_what_is_minted_under_a_policy_is_not_used_under_another() {
    let (house, tenant, recipe) = house_with_recipe();
    let under = |policy: &str| house.selected(&tenant, &recipe).under(policy.to_owned());
    mint(&house, &under("read"), &token("")).expect("minted");
    assert!(house.strongbox.is_ready(&under("read"), NOW));
    for other in [under("write"), house.selected(&tenant, &recipe)] {
        assert!(matches!(house.strongbox.lease_recorded(other, NOW), Err(LeaseRefused::NeedsMint)));
    }
    mint(&house, &under("write"), &token("").replace(TOKEN, "another-token-0123456789")).expect("minted");
    assert!(house.strongbox.is_ready(&under("read"), NOW), "neither takes the other's place");
}

#[test]
fn what_is_ended_is_given_back_once_and_is_still_scrubbed() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    let mut vessel = Vessel::default();
    house.strongbox.read_answer(answer(200, &token("")), &shape(), &selected, &mut vessel).expect("read");
    let url = "https://login.example.com/revoke".parse().expect("canonical");
    let undo = Some(Exchange::new(Method::Post, url));
    let yielded = Yield { parts: vec!["access_token"], undo, ..Yield::default() };
    house.strongbox.keep(&selected, &vessel, yielded, &facts(&tenant), NOW).expect("kept");
    assert!(house.strongbox.end_minted(&tenant, &recipe, 1).is_empty(), "its epoch has not ended");
    assert_eq!(house.strongbox.end_minted(&tenant, &recipe, 2).len(), 1);
    assert!(house.strongbox.end_minted(&tenant, &recipe, 2).is_empty());
    assert!(!house.strongbox.is_ready(&selected, NOW));
    let mut text = TOKEN.to_owned();
    crate::scrub_text(&house.strongbox.scrub_set(&tenant, &[recipe]), &mut text);
    assert_eq!(text, "[redacted]");
}

#[test]
fn a_token_is_leased_at_the_epoch_it_was_minted_for_until_it_ends() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    mint(&house, &selected, &token("")).expect("minted");
    let lease = house.lease(&tenant, &recipe);
    assert!(matches!(&lease.value, Leased::Minted(_, token) if token.expose() == TOKEN.as_bytes()));
    assert!(house.strongbox.is_ready(&selected, NOW));
    let later = UnixMillis(NOW.0 + 270_000);
    assert!(matches!(house.strongbox.lease_recorded(selected, later), Err(LeaseRefused::NeedsMint)));
    house.rotate(&tenant, &recipe, "client-secret-2-0123456789");
    let rotated = house.selected(&tenant, &recipe);
    assert!(matches!(house.strongbox.lease_recorded(rotated, NOW), Err(LeaseRefused::NeedsMint)));
}

#[tokio::test]
async fn r05_a_token_that_arrives_after_the_revocation_is_forgotten() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    house.strongbox.barrier_revoke(&tenant, &recipe, 2).await;
    assert_eq!(mint(&house, &selected, &token("")), Err(KeepRefused::Stale));
}

#[test]
fn r02_a_token_that_the_upstream_did_not_take_is_not_leased_again_and_still_scrubbed() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    mint(&house, &selected, &token("")).expect("minted");
    assert!(house.strongbox.spoil(&selected, Instant::now()), "another one may be asked for");
    assert!(house.strongbox.spoil(&selected, Instant::now()), "by everyone whose value was the same");
    assert!(matches!(house.strongbox.lease_recorded(selected, NOW), Err(LeaseRefused::NeedsMint)));
    let mut text = format!("a {TOKEN} b");
    crate::scrub_text(&house.strongbox.scrub_set(&tenant, std::slice::from_ref(&recipe)), &mut text);
    assert_eq!(text, "a [redacted] b");
    let selected = house.selected(&tenant, &recipe);
    let before = Instant::now();
    mint(&house, &selected, &token("").replace(TOKEN, "another-token-0123456789")).expect("minted");
    assert!(house.strongbox.spoil(&selected, before), "who used the first finds the second");
    assert!(house.strongbox.is_ready(&selected, NOW), "which is not lost by that");
    assert!(!house.strongbox.spoil(&selected, Instant::now()), "an upstream that takes none gets no third one at once");
    assert!(house.strongbox.is_ready(&selected, NOW));
}

#[test]
fn x10_a_token_is_scrubbed_from_the_moment_it_is_minted_and_so_is_its_client() {
    let (house, tenant, recipe) = house_with_recipe();
    let scrubbed = |text: &str| {
        let mut text = text.to_owned();
        crate::scrub_text(&house.strongbox.scrub_set(&tenant, std::slice::from_ref(&recipe)), &mut text);
        text
    };
    assert_eq!(scrubbed(TOKEN), TOKEN);
    mint(&house, &house.selected(&tenant, &recipe), &token("")).expect("minted");
    assert_eq!(scrubbed(TOKEN), "[redacted]");
    assert_eq!(scrubbed("client-secret-0123456789"), "[redacted]");
    // `id:client-secret-0123456789` in base64, as it was sent.
    assert_eq!(scrubbed("Basic aWQ6Y2xpZW50LXNlY3JldC0wMTIzNDU2Nzg5"), "Basic [redacted]");
}

#[test]
fn o5_tokens_of_one_credential_do_not_pile_up() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    for number in 0..100 {
        let body = token("").replace(TOKEN, &format!("{TOKEN}-{number}"));
        mint(&house, &selected, &body).expect("minted");
    }
    assert_eq!(house.strongbox.minted.all(&selected.guard_key()).len(), SEEN_MAX + 1);
    let newest = format!("{TOKEN}-99");
    assert!(
        matches!(house.lease(&tenant, &recipe).value, Leased::Minted(_, token) if token.expose() == newest.as_bytes())
    );
    let runs = (0..2 * HELD_MAX).map(|_| selected.clone().within(Some(RunId::random())));
    let kept = runs.filter(|within| mint(&house, within, &token("")).is_ok()).count();
    assert_eq!(kept, HELD_MAX - 1, "a run beyond these is told so, and takes nothing from another");
}
