//! Whom egress trusts: the names it dialled, proved by an authority that it knows, and nothing less.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use keybearer_contract::TenantId;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::GeneralSubtree;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::NameConstraints;
use rcgen::SanType;
use rcgen::date_time_ymd;
use rustls::ServerConfig;
use std::sync::Arc;

use crate::SendReason;
use crate::fixture::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What comes of a request to a server like this; its head must not have arrived if it failed.
async fn meets(authority: &Authority, server: Arc<ServerConfig>) -> Result<u16, SendReason> {
    let upstream = Upstream::answering(Some(server), OK).await;
    meets_upstream(authority, &upstream).await
}

async fn meets_upstream(authority: &Authority, upstream: &Upstream) -> Result<u16, SendReason> {
    let egress = egress(upstream, authority);
    let place = destination("https://api.example.com/");
    let vetted = egress.vet(&place, limits().deadline).await.expect("vetted");
    let status = egress.status(key(&TenantId::random(), &place), get("/"), &vetted, limits()).await;
    status.map_err(|fault| {
        assert_eq!(fault.delivery, keybearer_contract::Delivery::NotSent);
        assert!(upstream.heads().is_empty());
        fault.reason
    })
}

const UNTRUSTED: Result<u16, SendReason> = Err(SendReason::Untrusted);

#[tokio::test]
async fn n28_a_server_that_proves_the_name_by_a_known_authority_is_trusted() {
    let authority = Authority::new();
    assert_eq!(meets(&authority, authority.serves(&[HOST], |_| ())).await, Ok(200));
    assert_eq!(meets(&authority, authority.serves(&["other.example", HOST], |_| ())).await, Ok(200));
    assert_eq!(meets(&authority, authority.serves(&["*.example.com"], |_| ())).await, Ok(200));
}

#[tokio::test]
async fn n28_names_that_are_not_the_hosts_are_not_trusted() {
    let authority = Authority::new();
    for names in [
        &["evil.example"][..],
        &["example.com"],
        &["api.example.com.evil.example"],
        &["*.com"],
        &["*.api.example.com"],
        &["xapi.example.com"],
    ] {
        assert_eq!(meets(&authority, authority.serves(names, |_| ())).await, UNTRUSTED, "{names:?}");
    }
    // The address that was dialled is not a name that was asked for.
    let address = authority.serves(&[], |params| {
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    });
    assert_eq!(meets(&authority, address).await, UNTRUSTED);
    let common_name = authority.serves(&[], |params| params.distinguished_name.push(DnType::CommonName, HOST));
    assert_eq!(meets(&authority, common_name).await, UNTRUSTED);
}

#[tokio::test]
async fn n28_certificates_out_of_time_or_for_another_use_are_not_trusted() {
    let authority = Authority::new();
    let expired = authority.serves(&[HOST], |params| params.not_after = date_time_ymd(2024, 1, 1));
    assert_eq!(meets(&authority, expired).await, UNTRUSTED);
    let early = authority.serves(&[HOST], |params| params.not_before = date_time_ymd(4000, 1, 1));
    assert_eq!(meets(&authority, early).await, UNTRUSTED);
    let client =
        authority.serves(&[HOST], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(meets(&authority, client).await, UNTRUSTED);
}

#[tokio::test]
async fn n28_authorities_that_nobody_named_are_not_trusted() {
    let known = Authority::new();
    assert_eq!(meets(&known, Authority::new().serves(&[HOST], |_| ())).await, UNTRUSTED);

    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(vec![HOST.to_owned()]).expect("names");
    let self_signed = params.self_signed(&key).expect("certificate");
    assert_eq!(meets(&known, server(self_signed.der().clone(), &key)).await, UNTRUSTED);

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let constrained = Authority::with(params);
    assert_eq!(meets(&constrained, constrained.serves(&[HOST], |_| ())).await, UNTRUSTED);
}

#[tokio::test]
async fn n28_http_on_the_port_of_tls_is_not_trusted() {
    let upstream = Upstream::start(None, |mut wire| async move {
        wire.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        wire.until_closed().await;
    })
    .await;
    assert_eq!(meets_upstream(&Authority::new(), &upstream).await, UNTRUSTED);
}

#[tokio::test]
async fn n28_tls_1_1_is_not_spoken() {
    let upstream = Upstream::start(None, |mut wire| async move {
        // A ServerHello of TLS 1.1 with a suite that the ClientHello offers: only the version is wrong.
        let mut hello = vec![2, 0, 0, 38, 3, 2];
        hello.extend_from_slice(&[7; 32]);
        hello.extend_from_slice(&[0, 0xc0, 0x2f, 0]);
        let mut record = vec![22, 3, 2, 0, u8::try_from(hello.len()).expect("short")];
        record.extend_from_slice(&hello);
        wire.say(record).await;
        wire.until_closed().await;
    })
    .await;
    assert_eq!(meets_upstream(&Authority::new(), &upstream).await, UNTRUSTED);
}
