//! Tests of content codings, header fields, statuses and limits.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use flate2::write::GzEncoder;
use flate2::write::ZlibEncoder;
use http::HeaderName;
use http::HeaderValue;
use ruzstd::encoding::CompressionLevel;
use zeroize::Zeroizing;

use super::*;

const VALUE: &str = "canary-0123456789-canary";

/// What the samples below hold, made by the brotli of Node.js and by zstd 1.5 with a checksum.
const TEXT: &str =
    r#"{"authorization":"Bearer canary-0123456789-canary","a":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#;
const BROTLI: &str = "G2EA+I2Ubt40cxulKpcd+LyLpnbIQlfEcpODDThwCCymkCa6HQjhF5HkYdOILiiWsXWb+EqIKZfa+pjiBDwIxUF8";
const ZSTD: &str =
    "KLUv/SRi/QEAVAN7ImF1dGhvcml6YXRpb24iOiJCZWFyZXIgY2FuYXJ5LTAxMjM0NTY3ODktIiwiYSI6IngifQIA3MJX2CwD89lXew==";
/// Ten MiB of zeros.
const BROTLI_BOMB: &str = "y///P/gnAOKxQCD3/i///z/wTwDEYRGA7v0H";
/// A frame that asks for a window of 128 MiB (`zstd --ultra --long=27`), cut after its head.
const ZSTD_WIDE: &str = "KLUv/QSIZAAAEAAAAgDp/zdz4AEsAgAQAAIAEAACABAAAgAQAAIAEAACABAAAgAQ";

fn set() -> ScrubSet {
    ScrubSet::of(&[Zeroizing::new(VALUE.as_bytes().to_vec())])
}

fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).expect("name"),
            HeaderValue::from_str(value).expect("value"),
        );
    }
    map
}

fn answer(coding: &str, body: Vec<u8>, bytes_max: u64) -> Result<(Reply, Reflected), ScrubFault> {
    let headers = fields(&[("content-encoding", coding), ("content-length", "7"), ("content-type", "text/plain")]);
    let limits = ScrubLimits { decoded_bytes_max: bytes_max };
    scrub(Raw::new(200, headers, vec![body.into()], true), &set(), limits)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("finished")
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("finished")
}

fn raw_deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("finished")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, CompressionLevel::Fastest)
}

fn sample(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

#[test]
fn x05_every_coding_that_is_asked_for_is_undone_before_looking() {
    let expected = TEXT.replace(VALUE, REDACTED);
    let text = TEXT.as_bytes();
    let (front, back) = text.split_at(40);
    for (coding, body) in [
        ("identity", text.to_vec()),
        ("", text.to_vec()),
        ("gzip", gzip(text)),
        ("GZip", gzip(text)),
        ("x-gzip", gzip(text)),
        ("gzip", [gzip(front), gzip(back)].concat()),
        ("deflate", zlib(text)),
        ("deflate", raw_deflate(text)),
        ("br", sample(BROTLI)),
        ("zstd", sample(ZSTD)),
        ("zstd", zstd(text)),
        ("zstd", [zstd(front), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(back)].concat()),
        ("gzip, br", sample_of_brotli_over(&gzip(text))),
        ("zstd, identity, gzip", gzip(&zstd(text))),
    ] {
        let (reply, reflected) = answer(coding, body, 1 << 20).unwrap_or_else(|fault| panic!("{coding}: {fault}"));
        assert_eq!(String::from_utf8_lossy(reply.body()), expected, "{coding}");
        assert_eq!(reflected.count, 1);
        assert_eq!(reply.headers(), [("content-type".to_owned(), b"text/plain".to_vec())], "{coding}");
    }
}

/// RFC 7932 §9.2: one stored meta-block, and the empty last one.
fn sample_of_brotli_over(bytes: &[u8]) -> Vec<u8> {
    // WBITS 0; ISLAST 0, MNIBBLES 00, MLEN - 1 in 16 bits, ISUNCOMPRESSED 1.
    let head = ((bytes.len() as u32 - 1) << 4) | 1 << 20;
    [&head.to_le_bytes()[..3], bytes, &[3]].concat()
}

#[test]
fn x05_a_coding_that_was_not_asked_for_denies_the_body() {
    for coding in ["compress", "aes128gcm", "gzip;q=1", "gzip, gzip, gzip", "x", "*"] {
        assert_eq!(answer(coding, gzip(b"x"), 1 << 20).err(), Some(ScrubFault::UnknownCoding), "{coding}");
    }
}

#[test]
fn a_body_that_is_not_what_its_coding_says_is_denied() {
    let cut = |mut body: Vec<u8>| {
        body.truncate(body.len() / 2);
        body
    };
    for (coding, body) in [
        ("gzip", b"plain text".to_vec()),
        ("gzip", cut(gzip(TEXT.as_bytes()))),
        ("gzip", [gzip(b"x"), b"trailing".to_vec()].concat()),
        ("deflate", cut(zlib(TEXT.as_bytes()))),
        ("br", cut(sample(BROTLI))),
        ("zstd", cut(sample(ZSTD))),
        ("zstd", b"plain text".to_vec()),
        ("zstd", b"\x50\x2a\x4d\x18\xff\xff\xff\xffabc".to_vec()),
        ("zstd", sample(ZSTD_WIDE)),
    ] {
        assert_eq!(answer(coding, body, 1 << 20).err(), Some(ScrubFault::MalformedCoding), "{coding}");
    }
}

#[test]
fn n27_decoding_stops_at_the_limit() {
    let zeros = vec![0; 10 << 20];
    for (coding, body) in [
        ("identity", zeros.clone()),
        ("gzip", gzip(&zeros)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
        ("deflate", zlib(&zeros)),
        ("br", sample(BROTLI_BOMB)),
        ("zstd", zstd(&zeros)),
    ] {
        assert_eq!(answer(coding, body.clone(), 1 << 20).err(), Some(ScrubFault::TooLarge), "{coding}");
        assert_eq!(answer(coding, body.clone(), (10 << 20) - 1).err(), Some(ScrubFault::TooLarge), "{coding}");
        assert!(answer(coding, body, 10 << 20).is_ok(), "{coding}");
    }
}

#[test]
fn an_answer_without_a_body_may_name_a_coding() {
    let (reply, _) = answer("gzip", Vec::new(), 0).expect("passes");
    assert!(reply.body().is_empty());
}

#[test]
fn x27_a_partial_answer_to_a_credentialed_request_is_denied() {
    let limits = ScrubLimits { decoded_bytes_max: 100 };
    let partial = |credentialed| Raw::new(206, HeaderMap::new(), vec![Bytes::from_static(b"part")], credentialed);
    assert_eq!(scrub(partial(true), &set(), limits).err(), Some(ScrubFault::Partial));
    assert!(scrub(partial(false), &set(), limits).is_ok());
}

#[test]
fn x02_n34_header_fields_are_scrubbed_and_those_of_the_connection_or_of_ours_are_dropped() {
    let percent: String = VALUE.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let headers = fields(&[
        ("location", &format!("https://example.com/?key={percent}&a=b")),
        ("set-cookie", &format!("session={VALUE}; path=/")),
        ("set-cookie", "other=1"),
        ("x-echo", &STANDARD.encode(format!("Authorization: Bearer {VALUE}"))),
        (&format!("x-{VALUE}-name"), "1"),
        ("connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x"),
        ("x-keybearer-call", "forged"),
        ("traceparent", "forged"),
        ("tracestate", "forged"),
        ("x-run-id", "forged"),
        ("etag", "\"1\""),
    ]);
    let limits = ScrubLimits { decoded_bytes_max: 100 };
    let (reply, reflected) = scrub(Raw::new(302, headers, Vec::new(), true), &set(), limits).expect("passes");
    let kept: Vec<_> = reply
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    assert_eq!(kept[0], ("location", "https://example.com/?key=[redacted]&a=b".to_owned()));
    assert_eq!(kept[1], ("set-cookie", "session=[redacted]; path=/".to_owned()));
    assert_eq!(kept[2], ("set-cookie", "other=1".to_owned()));
    assert!(kept[3].0 == "x-echo" && kept[3].1.contains(REDACTED));
    assert_eq!(kept[4], ("etag", "\"1\"".to_owned()));
    assert_eq!(kept.len(), 5);
    assert_eq!((reflected.count, reply.status()), (4, 302));
}

#[test]
fn x10_what_was_made_for_a_request_is_taken_out_of_its_answer() {
    let signature = "0123456789abcdef".repeat(4);
    let headers = fields(&[("x-echo", signature.as_str()), (&format!("x-{signature}"), "1")]);
    let body = format!("SignatureDoesNotMatch: {signature}, {}", signature.to_uppercase());
    let raw = Raw::new(403, headers, vec![body.into()], true);
    let raw = raw.answering(crate::Derived::of(crate::secret::Secret::take(signature.into_bytes())));
    let limits = ScrubLimits { decoded_bytes_max: 1_000 };
    let (reply, reflected) = scrub(raw, &ScrubSet::empty(), limits).expect("passes");
    assert_eq!(reply.body(), b"SignatureDoesNotMatch: [redacted], [redacted]");
    assert_eq!(reply.headers(), [("x-echo".to_owned(), REDACTED.as_bytes().to_vec())]);
    assert_eq!(reflected.count, 3);
}
