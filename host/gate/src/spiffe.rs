//! SPIFFE ids of client certificates. That the chain leads to a trusted root and that the peer holds
//! the key was proved by the TLS handshake; here is only said who that is, by the rules of X509-SVID,
//! and whose, by the operator's table.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::Principal;
use crate::PrincipalLabel;
use crate::Scopes;
use crate::Unauthenticated;

/// The text is not a workload's SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SPIFFE id of a workload: it must be `spiffe://trust-domain/path`, in the characters that SPIFFE allows")]
pub struct SpiffeIdMalformed;

/// A workload's SPIFFE id, in the one spelling that SPIFFE-ID §2 allows; never repaired.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(Arc<str>);

/// SPIFFE-ID §2.3 and §2.1.
const ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

impl SpiffeId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdMalformed;

    fn from_str(text: &str) -> Result<Self, SpiffeIdMalformed> {
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdMalformed)?;
        // An id without a path names a trust domain, not a workload.
        let (domain, path) = rest.split_once('/').ok_or(SpiffeIdMalformed)?;
        let domain_fits = (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len())
            && domain.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte));
        let segment_fits = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if text.len() <= ID_BYTES_MAX && domain_fits && path.split('/').all(segment_fits) {
            Ok(Self(text.into()))
        } else {
            Err(SpiffeIdMalformed)
        }
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdMalformed;

    fn try_from(text: String) -> Result<Self, SpiffeIdMalformed> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whose workload an id names.
#[derive(Debug, Clone)]
pub struct SpiffeEntry {
    /// The tenant.
    pub tenant: TenantId,
    /// What it is good for.
    pub scopes: Scopes,
    /// When the operator made the entry: one that is older than its tenant was made for an earlier one of
    /// the name, and is refused when the tenant is entered.
    pub added: UnixMillis,
}

/// The operator's table of workloads.
#[derive(Debug, Clone, Default)]
pub struct SpiffeTable(pub HashMap<SpiffeId, SpiffeEntry>);

/// A longer leaf is not read: what a TLS record may hold.
const LEAF_BYTES_MAX: usize = 16 << 10;

/// Says whose principal the holder of a verified client certificate is.
///
/// # Errors
/// [`Unauthenticated`] if it is not a leaf X509-SVID with exactly one id, or the table has no such id.
pub fn authenticate_spiffe(leaf_der: &[u8], table: &SpiffeTable) -> Result<Principal, Unauthenticated> {
    let id = leaf_id(leaf_der).ok_or(Unauthenticated)?;
    let entry = table.0.get(&id).ok_or(Unauthenticated)?;
    Ok(Principal {
        tenant: entry.tenant.clone(),
        label: PrincipalLabel::new(id.as_str()),
        scopes: entry.scopes.clone(),
        packages: None,
        issued: entry.added,
        expires: None,
        run: None,
    })
}

/// What an X509-SVID of our own says: its id, and what is needed to use it no longer than it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidChain {
    /// The one id of the leaf.
    pub id: SpiffeId,
    /// The leaf's serial number, in hexadecimal: its version, for records.
    pub serial: String,
    /// From when on the leaf holds.
    pub begins: UnixMillis,
    /// When it ends.
    pub ends: UnixMillis,
    /// Where each certificate stands in what was read; the leaf is the first.
    pub certificates: Vec<std::ops::Range<usize>>,
}

/// Certificates of a chain, the leaf included: what a peer walks at the most.
const CHAIN_MAX: usize = 8;

/// Reads an X509-SVID as the Workload API gives it: certificates one after the other, DER, the leaf first (Workload
/// API §5.2.1). None if the leaf is no SVID.
#[must_use]
pub fn svid_chain(der: &[u8]) -> Option<SvidChain> {
    let mut certificates = Vec::new();
    let mut leaf = None;
    let mut begin = 0;
    while begin < der.len() {
        let (rest, certificate) = X509Certificate::from_der(&der[begin..]).ok()?;
        let end = der.len() - rest.len();
        if certificates.len() == CHAIN_MAX {
            return None;
        }
        if certificates.is_empty() {
            let millis = |time: i64| u64::try_from(time).ok()?.checked_mul(1_000).map(UnixMillis);
            let validity = certificate.validity();
            let (begins, ends) = (millis(validity.not_before.timestamp())?, millis(validity.not_after.timestamp())?);
            let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            leaf = Some((leaf_id(&der[..end])?, serial, begins, ends));
        }
        certificates.push(begin..end);
        begin = end;
    }
    let (id, serial, begins, ends) = leaf?;
    Some(SvidChain { id, serial, begins, ends, certificates })
}

/// The one id of a leaf (X509-SVID §2, §4.1, §4.3, §5.2).
fn leaf_id(der: &[u8]) -> Option<SpiffeId> {
    if der.len() > LEAF_BYTES_MAX {
        return None;
    }
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() || certificate.basic_constraints().ok()?.is_some_and(|constraints| constraints.value.ca) {
        return None;
    }
    let usage = certificate.key_usage().ok()??;
    if !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return None;
    }
    let names = certificate.subject_alternative_name().ok()??;
    let mut id = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) if id.is_none() => id = Some(uri.parse().ok()?),
            // A second one, or one that another reader might read.
            GeneralName::URI(_) | GeneralName::Invalid(..) => return None,
            _ => {}
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::BasicConstraints;
    use rcgen::CertificateParams;
    use rcgen::IsCa;
    use rcgen::KeyPair;
    use rcgen::KeyUsagePurpose;
    use rcgen::SanType;

    const ID: &str = "spiffe://acme.example/agents/billing";

    fn params(uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ascii"))).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    }

    fn der(params: CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().expect("made");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    fn table() -> SpiffeTable {
        let entry = SpiffeEntry { tenant: TenantId::random(), scopes: Scopes::default(), added: UnixMillis(5) };
        SpiffeTable(HashMap::from([(ID.parse().expect("an id"), entry)]))
    }

    #[test]
    fn a_workload_of_the_table_is_its_tenants_principal() {
        let table = table();
        let mut with_dns = params(&[ID]);
        with_dns.subject_alt_names.push(SanType::DnsName("billing.acme.example".try_into().expect("ascii")));
        for params in [params(&[ID]), with_dns] {
            let principal = authenticate_spiffe(&der(params), &table).unwrap_or_else(|_| panic!("refused"));
            assert_eq!(Some(&principal.tenant), table.0.values().map(|entry| &entry.tenant).next());
            assert_eq!((principal.label.as_str(), principal.issued), (ID, UnixMillis(5)));
        }
    }

    #[test]
    fn t02_a_certificate_that_is_no_leaf_with_one_known_id_is_refused() {
        let mut authority = params(&[ID]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut signs = params(&[ID]);
        signs.key_usages.push(KeyUsagePurpose::KeyCertSign);
        let mut no_usage = params(&[ID]);
        no_usage.key_usages.clear();
        let mut dns_only = params(&[]);
        dns_only.subject_alt_names.push(SanType::DnsName("acme.example".try_into().expect("ascii")));
        for (why, params) in [
            ("an authority", authority),
            ("signs certificates", signs),
            ("no key usage", no_usage),
            ("no id", params(&[])),
            ("a name only", dns_only),
            ("two ids", params(&[ID, "spiffe://acme.example/other"])),
            ("the same id twice", params(&[ID, ID])),
            ("an id and another URI", params(&[ID, "https://acme.example/"])),
            ("not in the table", params(&["spiffe://acme.example/agents/other"])),
            ("of another trust domain", params(&["spiffe://evil.example/agents/billing"])),
        ] {
            assert!(authenticate_spiffe(&der(params), &table()).is_err(), "{why}");
        }
        let good = der(params(&[ID]));
        for bad in [&good[..good.len() - 1], &[&good[..], b"\0"].concat(), b"", &[0; LEAF_BYTES_MAX + 1]] {
            assert!(authenticate_spiffe(bad, &table()).is_err());
        }
    }

    #[test]
    fn t03_an_id_has_one_spelling() {
        for bad in [
            "spiffe://acme.example",
            "spiffe://acme.example/",
            "spiffe://acme.example/a/",
            "spiffe://acme.example//a",
            "spiffe://acme.example/a/../b",
            "spiffe://acme.example/./b",
            "spiffe://acme.example/a%2fb",
            "spiffe://acme.example/a?b",
            "spiffe://acme.example/a#b",
            "spiffe://acme.example:443/a",
            "spiffe://user@acme.example/a",
            "spiffe://Acme.example/a",
            "SPIFFE://acme.example/a",
            "spiffe:///a",
            "https://acme.example/a",
            "spiffe://acme.example/\u{e4}",
            &format!("spiffe://{}/a", "d".repeat(256)),
            &format!("spiffe://acme.example/{}", "a".repeat(2048)),
        ] {
            assert_eq!(bad.parse::<SpiffeId>(), Err(SpiffeIdMalformed), "{bad}");
        }
        assert!("spiffe://acme_1.example/A-b_c.d/1".parse::<SpiffeId>().is_ok());
    }

    // If it failed, the host would show a certificate for an id that it does not carry, or past its end.
    #[test]
    fn t02_a_chain_of_our_own_is_read_with_its_id_serial_and_end() {
        let mut leaf = params(&[ID]);
        leaf.serial_number = Some(vec![0x12, 0xab].into());
        leaf.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let leaf = der(leaf);
        let chain = svid_chain(&[leaf.clone(), der(params(&[]))].concat()).expect("a chain");
        assert_eq!((chain.id.as_str(), chain.serial.as_str()), (ID, "12ab"));
        assert_eq!(chain.ends, UnixMillis(2_208_988_800_000));
        assert_eq!(chain.certificates.len(), 2);
        assert_eq!(chain.certificates[0], 0..leaf.len());
        for bad in [
            Vec::new(),
            der(params(&[])),
            [der(params(&[])), leaf.clone()].concat(),
            [&leaf[..], b"\0"].concat(),
            leaf[1..].to_vec(),
            leaf.repeat(9),
        ] {
            assert_eq!(svid_chain(&bad), None);
        }
    }
}
