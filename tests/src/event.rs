//! Sending an event to a hook, signed as Standard Webhooks has it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Answer;
use crate::Client;

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
