//! AWS Signature Version 4: an access key signs the request as it goes on the wire, for one region and one service
//! that a slot or an exchange names. What is signed is decided here: the guest chooses neither scope nor header
//! fields (threats P09). Or a URL, in its query, for whoever holds it. Not for bodies that are signed in pieces.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use keybearer_contract::UnixMillis;
use keybearer_gate::UrlToSign;
use zeroize::Zeroizing;

use crate::Derived;
use crate::OpenArmed;
use crate::PlaceRefused;
use crate::accept::AwsKeys;
use crate::place::authorization;
use crate::place::percent_encode;
use crate::secret::Secret;

/// What a signature is good for.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'scope> {
    pub(crate) region: &'scope str,
    pub(crate) service: &'scope str,
}

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs a request on which everything else is. Returns the signature, to be looked for in the answer.
///
/// # Errors
/// [`PlaceRefused::AlreadyPresent`] if somebody else set what a signature adds.
pub(crate) fn sign(
    open: &mut OpenArmed,
    scope: Scope<'_>,
    keys: AwsKeys<'_>,
    now: UnixMillis,
) -> Result<Derived, PlaceRefused> {
    let time = BasicTime::of(now);
    let payload = hex::encode(digest::digest(&digest::SHA256, &open.body));
    let token = keys.token.map(|token| authorization("", token)).transpose()?;
    let plain = |text: &str| HeaderValue::try_from(text).map_err(|_| PlaceRefused::Malformed);
    let mut fields = vec![(DATE, plain(&time.whole)?), (CONTENT_SHA256, plain(&payload)?)];
    fields.extend(token.map(|token| (SECURITY_TOKEN, token)));
    for (name, value) in fields {
        if open.headers.insert(name, value).is_some() {
            return Err(PlaceRefused::AlreadyPresent);
        }
    }
    let signed = signed_fields(&open.headers);
    let request = Request {
        method: open.method.as_str(),
        path: open.path_and_query.path(),
        query: open.path_and_query.query(),
        signed: &signed,
        payload: &payload,
    };
    let signature = request.signature(scope, keys.secret, &time);
    let proof = request.authorization(scope, keys.id, &time, &signature);
    if open.headers.insert(header::AUTHORIZATION, authorization("", &proof)?).is_some() {
        return Err(PlaceRefused::AlreadyPresent);
    }
    Ok(Derived::of(Secret::take(signature.into_bytes())))
}

/// A URL with a signature in its query, and the signature (Amazon S3 API reference, "Authenticating requests: using query
/// parameters"). The host is signed and no other field; the body is not, which S3 alone allows, and for any other
/// service must be empty.
pub(crate) fn presign(url: &UrlToSign, keys: AwsKeys<'_>, now: UnixMillis) -> (Vec<u8>, String) {
    let (scope, time) = (Scope { region: &url.region, service: &url.service }, BasicTime::of(now));
    let mut credential = String::with_capacity(160);
    percent_encode(keys.id, &mut credential);
    percent_encode(format!("/{}", scoped(scope, &time)).as_bytes(), &mut credential);
    let added = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={}&X-Amz-Expires={}&X-Amz-SignedHeaders=host",
        time.whole, url.expires_s
    );
    let query = match url.query.as_deref() {
        None | Some("") => added,
        Some(query) => format!("{query}&{added}"),
    };
    let host = Zeroizing::new(url.destination.authority().into_bytes());
    let payload = match scope.service {
        "s3" => "UNSIGNED-PAYLOAD".to_owned(),
        _ => hex::encode(digest::digest(&digest::SHA256, b"")),
    };
    let signed = BTreeMap::from([("host", host)]);
    let (method, path, query) = (url.method.as_str(), url.path.as_str(), query.as_str());
    let request = Request { method, path, query: Some(query), signed: &signed, payload: &payload };
    let signature = request.signature(scope, keys.secret, &time);
    (format!("{}{path}?{query}&X-Amz-Signature={signature}", url.destination).into_bytes(), signature)
}

/// What is signed: whom it is for, what it is, and every field of AWS's own, as AWS demands. The others may be changed
/// on the way.
fn signed_fields(headers: &HeaderMap) -> BTreeMap<&str, Zeroizing<Vec<u8>>> {
    let is_signed =
        |name: &HeaderName| name == header::HOST || name == header::CONTENT_TYPE || name.as_str().starts_with("x-amz-");
    let fields = headers.iter().filter(|(name, _)| is_signed(name));
    fields.map(|(name, value)| (name.as_str(), trimmed(value.as_bytes()))).collect()
}

/// Without white space at its ends, and none twice in a row.
fn trimmed(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut trimmed = Zeroizing::new(Vec::with_capacity(value.len()));
    for byte in value.trim_ascii() {
        let (is_space, follows) = (byte.is_ascii_whitespace(), trimmed.last() == Some(&b' '));
        match (is_space, follows) {
            (true, true) => {}
            (true, false) => trimmed.push(b' '),
            (false, _) => trimmed.push(*byte),
        }
    }
    trimmed
}

/// A request, as much of it as is signed.
struct Request<'request> {
    method: &'request str,
    path: &'request str,
    query: Option<&'request str>,
    /// By name, sorted.
    signed: &'request BTreeMap<&'request str, Zeroizing<Vec<u8>>>,
    payload: &'request str,
}

impl Request<'_> {
    /// The signature, in hex: of the canonical request's digest by a key that is good for a day, a region, a service.
    fn signature(&self, scope: Scope<'_>, secret: &[u8], time: &BasicTime) -> String {
        let canonical = hex::encode(digest::digest(&digest::SHA256, &self.canonical(scope)));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{canonical}", time.whole, scoped(scope, time));
        let mut first = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
        first.extend_from_slice(b"AWS4");
        first.extend_from_slice(secret);
        let mut key = mac(&first, time.day().as_bytes());
        for part in [scope.region, scope.service, "aws4_request"] {
            key = mac(&*key, part.as_bytes());
        }
        hex::encode(*mac(&*key, text.as_bytes()))
    }

    fn authorization(&self, scope: Scope<'_>, id: &[u8], time: &BasicTime, signature: &str) -> Zeroizing<Vec<u8>> {
        let signed = self.signed_names();
        let scope = scoped(scope, time);
        let mut proof = Zeroizing::new(Vec::with_capacity(160 + id.len() + scope.len() + signed.len()));
        proof.extend_from_slice(b"AWS4-HMAC-SHA256 Credential=");
        proof.extend_from_slice(id);
        let rest = format!("/{scope}, SignedHeaders={signed}, Signature={signature}");
        proof.extend_from_slice(rest.as_bytes());
        proof
    }

    fn signed_names(&self) -> String {
        self.signed.keys().copied().collect::<Vec<_>>().join(";")
    }

    /// The canonical request. Holds the session's token.
    fn canonical(&self, scope: Scope<'_>) -> Zeroizing<Vec<u8>> {
        let fields: usize = self.signed.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let rest = 9 * (self.path.len() + self.query.map_or(0, str::len)) + 2 * self.signed_names().len();
        let mut text = Zeroizing::new(Vec::with_capacity(256 + fields + rest));
        let mut line = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| text.extend_from_slice(part));
            text.push(b'\n');
        };
        line(&[self.method.as_bytes()]);
        line(&[canonical_path(self.path, scope.service).as_bytes()]);
        line(&[canonical_query(self.query.unwrap_or_default()).as_bytes()]);
        for (name, value) in self.signed {
            line(&[name.as_bytes(), b":", value]);
        }
        line(&[]);
        line(&[self.signed_names().as_bytes()]);
        text.extend_from_slice(self.payload.as_bytes());
        text
    }
}

/// The path as it is on the wire, encoded once more; S3 alone encodes once, for a key may be any text. There are no dot
/// segments to be resolved: no such path is cleared.
fn canonical_path(path: &str, service: &str) -> String {
    let mut canonical = String::with_capacity(3 * path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            canonical.push('/');
        }
        if service == "s3" {
            percent_encode(&crate::scrub::percent_decoded(segment.as_bytes()), &mut canonical);
        } else {
            percent_encode(segment.as_bytes(), &mut canonical);
        }
    }
    canonical
}

/// Parameters encoded one way, and in order. A plus is a plus: a space is `%20`.
fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let mut encoded = String::with_capacity(3 * text.len());
        percent_encode(&crate::scrub::percent_decoded(text.as_bytes()), &mut encoded);
        encoded
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> = pairs.map(|(name, value)| (encoded(name), encoded(value))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn scoped(scope: Scope<'_>, time: &BasicTime) -> String {
    format!("{}/{}/{}/aws4_request", time.day(), scope.region, scope.service)
}

fn mac(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// ISO 8601's basic form, in UTC.
struct BasicTime {
    whole: String,
}

impl BasicTime {
    fn of(now: UnixMillis) -> Self {
        let seconds = now.0 / 1_000;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        Self { whole: format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z") }
    }

    fn day(&self) -> &str {
        self.whole.split('T').next().unwrap_or_default()
    }
}

/// Year, month and day so many days after 1970 began. Years are counted from March, so that the day which some
/// of them lack is their last; 400 years are 146 097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
