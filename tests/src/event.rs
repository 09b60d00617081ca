//! Sending an event to a hook, signed as Standard Webhooks has it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Answer;
use crate::Client;
use crate::Recorded;

/// Sends an event, signed with the hook's secret (`whsec_…`), as of now.
///
/// # Errors
/// If no answer comes.
pub async fn send_event(client: &Client, hook: &str, secret: &str, id: &str, body: &Value) -> anyhow::Result<Answer> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    send_event_at(client, hook, secret, id, now, body).await
}

/// As [`send_event`], as of then, in seconds since 1970.
///
/// # Errors
/// If no answer comes.
pub async fn send_event_at(
    client: &Client,
    hook: &str,
    secret: &str,
    id: &str,
    at: u64,
    body: &Value,
) -> anyhow::Result<Answer> {
    let (body, at) = (serde_json::to_vec(body)?, at.to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(secret.trim_start_matches("whsec_"))?);
    let message = [id.as_bytes(), b".", at.as_bytes(), b".", &body].concat();
    let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &message)));
    let fields = [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", &at),
        ("webhook-signature", &signature),
    ];
    client.send("POST", &format!("/v1/hooks/{hook}/events"), &fields, body).await
}

/// Whether a recorded request is a webhook that this secret (`whsec_…`) signed.
#[must_use]
pub fn is_signed(request: &Recorded, secret: &str) -> bool {
    let field = |name| request.header(name).unwrap_or_default();
    let Ok(key) = STANDARD.decode(secret.trim_start_matches("whsec_")) else { return false };
    let (id, at) = (field("webhook-id"), field("webhook-timestamp"));
    let message = [id.as_bytes(), b".", at.as_bytes(), b".", &request.body].concat();
    let tag = field("webhook-signature").strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    tag.is_some_and(|tag| hmac::verify(&key, &message, &tag).is_ok())
}
