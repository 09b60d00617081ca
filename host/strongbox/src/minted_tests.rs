//! Tests of minted tokens: what a token endpoint answers is used, scrubbed and told to nobody.

use bytes::Bytes;
use http::HeaderMap;
use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;

use super::*;
use crate::LeaseRefused;
use crate::fixture::House;
use crate::fixture::NOW;
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

fn read(body: &str) -> Result<u64, TokenRefused> {
    let (house, tenant, recipe) = house_with_recipe();
    let minted = house.strongbox.read_token_answer(answer(200, body), &house.selected(&tenant, &recipe), NOW)?;
    Ok((minted.expires.0 - NOW.0) / 1_000)
}

fn token(extra: &str) -> String {
    format!(r#"{{"access_token":"{TOKEN}","token_type":"bearer"{extra}}}"#)
}

#[test]
fn a_token_is_used_until_shortly_before_it_ends_and_never_longer_than_an_hour() {
    assert_eq!(read(&token(r#","expires_in":600"#)), Ok(570));
    assert_eq!(read(&token(r#","expires_in":"600""#)), Ok(570));
    assert_eq!(read(&token(r#","expires_in":600.0"#)), Ok(570));
    assert_eq!(read(&token(r#","expires_in":20"#)), Ok(15));
    assert_eq!(read(&token(r#","expires_in":0"#)), Ok(0));
    assert_eq!(read(&token("")), Ok(270));
    assert_eq!(read(&token(r#","expires_in":18446744073709551615"#)), Ok(3_600));
    assert_eq!(read(&token(r#","refresh_token":"x","id_token":"y","scope":"z""#)), Ok(270));
}

#[test]
fn a01_an_answer_that_is_not_what_the_standard_says_gives_no_token() {
    for body in [
        "",
        "[]",
        "{",
        r#"{"access_token":"0123456789abcdef"}"#,
        r#"{"token_type":"Bearer"}"#,
        r#"{"access_token":7,"token_type":"Bearer"}"#,
    ] {
        assert_eq!(read(body), Err(TokenRefused::Malformed), "{body}");
    }
    for extra in [r#","expires_in":-1"#, r#","expires_in":{}"#, r#","access_token":"0123456789abcdef""#] {
        assert_eq!(read(&token(extra)), Err(TokenRefused::Malformed), "{extra}");
    }
    assert_eq!(read(&token("").replace("bearer", "mac")), Err(TokenRefused::NotBearer));
    for unfit in ["short", "0123456789 abcdef", "0123456789\\r\\nabcdef", "0123456789abcdé"] {
        assert_eq!(read(&token("").replace(TOKEN, unfit)), Err(TokenRefused::Unfit), "{unfit}");
    }
    assert_eq!(read(&token("").replace(TOKEN, &"x".repeat(9_000))), Err(TokenRefused::Unfit));
    assert_eq!(read(&token("").replace(TOKEN, &"x".repeat(70_000))), Err(TokenRefused::TooLarge));
}

#[test]
fn p10_a_refusal_repeats_nothing_of_the_answer_but_a_code_of_the_standard() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    let refused = |status, body: &str| house.strongbox.read_token_answer(answer(status, body), &selected, NOW).err();
    let code = Some("invalid_client");
    assert_eq!(refused(401, r#"{"error":"invalid_client"}"#), Some(TokenRefused::Status { status: 401, code }));
    let body = format!(r#"{{"error":"{TOKEN}"}}"#);
    assert_eq!(refused(400, &body), Some(TokenRefused::Status { status: 400, code: None }));
    assert_eq!(refused(206, &token("")), Some(TokenRefused::Status { status: 206, code: None }));
}

#[test]
fn a_token_is_leased_at_the_epoch_it_was_minted_for_until_it_ends() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    house.strongbox.read_token_answer(answer(200, &token("")), &selected, NOW).expect("minted");
    let lease = house.lease(&tenant, &recipe);
    assert!(matches!(&lease.value, Leased::Minted(token) if token.expose() == TOKEN.as_bytes()));
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
    let late = house.strongbox.read_token_answer(answer(200, &token("")), &selected, NOW);
    assert_eq!(late, Err(TokenRefused::Stale));
}

#[test]
fn r02_a_token_that_the_upstream_did_not_take_is_not_leased_again_and_still_scrubbed() {
    let (house, tenant, recipe) = house_with_recipe();
    let selected = house.selected(&tenant, &recipe);
    house.strongbox.read_token_answer(answer(200, &token("")), &selected, NOW).expect("minted");
    house.strongbox.spoil_token(&selected);
    assert!(matches!(house.strongbox.lease_recorded(selected, NOW), Err(LeaseRefused::NeedsMint)));
    let mut text = format!("a {TOKEN} b");
    crate::scrub_text(&house.strongbox.scrub_set(&tenant, &[recipe]), &mut text);
    assert_eq!(text, "a [redacted] b");
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
    house.strongbox.read_token_answer(answer(200, &token("")), &house.selected(&tenant, &recipe), NOW).expect("minted");
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
        house.strongbox.read_token_answer(answer(200, &body), &selected, NOW).expect("minted");
    }
    assert_eq!(house.strongbox.minted.all(&selected.guard_key()).len(), TOKENS_MAX);
    let newest = format!("{TOKEN}-99");
    assert!(
        matches!(house.lease(&tenant, &recipe).value, Leased::Minted(token) if token.expose() == newest.as_bytes())
    );
}
