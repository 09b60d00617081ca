//! Where in an answer a credential may stand, and how the answer may come.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use flate2::write::GzEncoder;
use flate2::write::ZlibEncoder;
use keybearer_tests::Piece;
use keybearer_tests::Reply;
use keybearer_tests::Traces;
use ruzstd::encoding::CompressionLevel;
use serde_json::json;

use super::stage::BEARER;
use super::stage::OPEN;
use super::stage::Stage;

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Reply { status, headers: headers.collect(), body: body.into() }
}

// If it failed, a guest would read the credential from a header, a cookie, a redirect or a page of errors.
#[tokio::test]
async fn x02_x09_n10_a_credential_in_any_place_of_an_answer_is_taken_out() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let value = stage.values.bearer.as_str();
    let traces = Traces::of(&[("bearer", value)])?;
    let coded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let b64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("x:{value}"));
    let named = format!("x-{value}");
    let headers = [
        ("x-request-headers", format!("authorization=Bearer {value}; host=x")),
        ("x-coded", format!("token={coded}")),
        ("x-basic", format!("Basic {b64}")),
        ("set-cookie", format!("session={value}; Path=/; HttpOnly")),
        ("set-cookie", "plain=1".to_owned()),
        ("location", format!("https://elsewhere.test/callback?token={coded}&a=1")),
        ("www-authenticate", format!("Bearer error=\"invalid_token\", token=\"{value}\"")),
        ("link", format!("<https://{BEARER}/?access_token={value}>; rel=next")),
        (named.as_str(), "named".to_owned()),
        ("x-untouched", "as it was".to_owned()),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for status in [200, 302, 401, 500] {
        let heard = stage.hear_reply(reply(status, &headers, format!("{{\"token\":\"{value}\"}}"))).await?;
        assert_eq!(heard.outcome, status.to_string(), "{}", heard.text());
        assert_eq!(traces.find(&heard.bytes), None, "{}", heard.text());
        assert_eq!(heard.body(), "{\"token\":\"[redacted]\"}");
        assert_eq!(heard.header("x-untouched").as_deref(), Some("as it was"));
        assert_eq!(heard.header("location").as_deref(), Some("https://elsewhere.test/callback?token=[redacted]&a=1"));
        assert_eq!(heard.header("set-cookie").as_deref(), Some("session=[redacted]; Path=/; HttpOnly"));
        assert!(heard.text().contains("set-cookie: plain=1") && !heard.text().contains("named"));
    }

    // Bytes are searched as bytes, whatever they are: an image, a form of many parts.
    let image = [&[0x89, b'P', b'N', b'G', 0xff, 0xfe, 0x00][..], value.as_bytes(), &[0x80, 0xc3, 0x00]].concat();
    let heard = stage.hear_reply(reply(200, &[("content-type", "image/png")], image)).await?;
    assert_eq!(traces.find(&heard.bytes), None);
    assert!(heard.bytes.windows(4).any(|window| window == [0x89, b'P', b'N', b'G']));
    let parts = format!("--b\r\ncontent-disposition: form-data; name=\"t\"\r\n\r\n{value}\r\n--b--\r\n");
    let heard = stage.hear_reply(reply(200, &[("content-type", "multipart/form-data; boundary=b")], parts)).await?;
    assert_eq!(traces.find(&heard.bytes), None);
    assert!(heard.body().contains("\r\n\r\n[redacted]\r\n--b--"), "{}", heard.body());
    Ok(())
}

// If it failed, the credential would pass in the parts of HTTP that no library shows, or where it is cut.
#[tokio::test]
async fn x02_x05_the_reason_the_trailers_the_interim_answers_and_the_cuts_carry_nothing() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let value = stage.values.bearer.clone();
    let traces = Traces::of(&[("bearer", &value)])?;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n";
    let cases = [
        ("reason", format!("HTTP/1.1 200 {value}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")),
        (
            "trailers",
            format!(
                "{head}trailer: x-late\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\nx-late: {value}\r\n\r\n",
                chunk("ok")
            ),
        ),
        ("interim", format!("HTTP/1.1 103 Early Hints\r\nlink: <{value}>\r\n\r\n{head}content-length: 2\r\n\r\nok")),
        ("chunk extension", format!("{head}transfer-encoding: chunked\r\n\r\n2;t={value}\r\nok\r\n0\r\n\r\n")),
    ];
    for (name, text) in cases {
        let heard = stage.hear_raw(vec![Piece::text(text)]).await?;
        assert_eq!((heard.outcome.as_str(), heard.body().as_str()), ("200", "ok"), "{name}");
        assert_eq!(traces.find(&heard.bytes), None, "{name}");
    }

    // Cut into chunks of one byte, and into writes in the middle of it.
    let text = format!("before {value} after");
    let bytes: String = text.chars().map(|letter| chunk(&letter.to_string())).collect();
    let heard = stage.hear_raw(vec![Piece::text(format!("{head}transfer-encoding: chunked\r\n\r\n{bytes}0\r\n\r\n"))]);
    assert_eq!(heard.await?.body(), "before [redacted] after");
    let half = 7 + value.len() / 2;
    let pieces = vec![
        Piece::text(format!("{head}content-length: {}\r\n\r\n{}", text.len(), &text[..half])),
        Piece::Pause(std::time::Duration::from_millis(20)),
        Piece::text(&text[half..]),
    ];
    assert_eq!(stage.hear_raw(pieces).await?.body(), "before [redacted] after");

    // An answer that breaks off, and one that is framed twice, are none.
    for text in [
        format!("{head}content-length: 999\r\n\r\n{text}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n{}", chunk(&text)),
        format!("{head}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(&text)),
        format!("{head}content-length: 3\r\ncontent-length: 4\r\n\r\n{text}"),
        format!("not http {value}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{value}\r\n\r\n"),
    ] {
        let heard = stage.hear_raw(vec![Piece::text(text.clone())]).await?;
        assert_eq!(heard.outcome, "upstream: malformed answer, maybe sent", "{text}");
        assert_eq!(traces.find(&heard.bytes), None);
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("packed")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("packed")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("packed")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// One stored meta-block and the empty last one (RFC 7932 §9.2).
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let head = ((bytes.len() as u32 - 1) << 4) | 1 << 20;
    [&head.to_le_bytes()[..3], bytes, &[3]].concat()
}

// If it failed, an upstream would have to do no more than compress its answer.
#[tokio::test]
async fn x05_x27_codings_are_undone_before_looking_and_parts_and_unknown_codings_are_refused() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let value = stage.values.bearer.clone();
    let traces = Traces::of(&[("bearer", &value)])?;
    let text = format!("before {value} after, and again {value}").into_bytes();
    let (front, back) = text.split_at(20);
    let coded = [
        ("gzip", gzip(&text)),
        ("x-gzip", gzip(&text)),
        ("GZIP", gzip(&text)),
        ("gzip", [gzip(front), gzip(back)].concat()),
        ("deflate", zlib(&text)),
        ("deflate", deflate(&text)),
        ("br", brotli(&text)),
        ("zstd", zstd(&text)),
        ("zstd", [zstd(front), zstd(back)].concat()),
        ("gzip, br", brotli(&gzip(&text))),
        ("identity", text.clone()),
    ];
    for (coding, body) in coded {
        let heard = stage.hear_reply(reply(200, &[("content-encoding", coding)], body)).await?;
        assert_eq!(heard.body(), "before [redacted] after, and again [redacted]", "{coding}");
        assert_eq!(heard.header("content-encoding"), None, "{coding}");
    }
    for (coding, body) in [
        ("compress", text.clone()),
        ("aes128gcm", text.clone()),
        ("gzip, gzip, gzip", gzip(&gzip(&gzip(&text)))),
        ("gzip;q=1", gzip(&text)),
        ("gzip", text.clone()),
        ("br", text.clone()),
    ] {
        let heard = stage.hear_reply(reply(200, &[("content-encoding", coding)], body)).await?;
        assert_eq!(heard.outcome, "upstream: malformed answer, maybe sent", "{coding}");
        assert_eq!(traces.find(&heard.bytes), None, "{coding}");
    }

    // Nobody but the host says which coding or which part is wanted.
    stage.upstream.forget();
    for (name, field) in [("range", "bytes=0-5"), ("if-range", "\"x\""), ("accept-encoding", "identity")] {
        let said = json!({"url": format!("https://{BEARER}/"), "headers": [[name, field]]});
        assert_eq!(stage.tenant.hear("probe", said).await?.outcome, "denied", "{name}");
    }
    assert_eq!(stage.upstream.recorded().len(), 0);
    let part = &value[..10];
    let partial = [("content-range", "bytes 7-16/99"), ("content-type", "text/plain")];
    let heard = stage.hear_reply(reply(206, &partial, part)).await?;
    assert_eq!(heard.outcome, "upstream: partial answer, maybe sent");
    assert_eq!(stage.upstream.recorded()[0].header("accept-encoding"), Some("gzip, deflate, br, zstd"));
    // What a 206 would have held is not in the call's explanation either.
    assert!(!stage.tenant.explain(&heard.call).await?.contains(part));
    Ok(())
}

// If it failed, a value that a credentialed call left somewhere could be fetched from there without one.
#[tokio::test]
async fn x28_a_granted_value_is_taken_out_of_answers_to_requests_without_a_credential() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    for (host, value) in stage.reflected() {
        let url = format!("https://{OPEN}/form/0?of={}", stage.which(&value));
        let heard = stage.hear(&url).await?;
        assert_eq!(heard.body(), "before [redacted] after", "{host}");
    }
    Ok(())
}
