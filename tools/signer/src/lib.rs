//! The worked example of signing by functions of the host: a MAC within a body, a ticket for another site, a link that is
//! good for minutes. The keys are the tenant's and nowhere in here; what they may sign is in the manifest.

use keybearer_guest::http::Method;
use keybearer_guest::prelude::*;

/// An event.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The order's number.
    pub order: u64,
    /// What became of it: `paid`, `sent`.
    pub state: String,
}

/// What became of an event.
#[derive(Serialize, JsonSchema)]
pub struct Delivered {
    /// The status of the receiver.
    pub status: u16,
}

/// Tells the receiver of events what became of an order, signed.
#[tool]
pub fn deliver(event: Event) -> Result<Delivered, ToolError> {
    // As text, for a MAC is over bytes: the receiver verifies it before it parses it.
    let event = keybearer_guest::serde_json::to_string(&event)?;
    let mac = signing::hex(&signing::mac("events", &event)?);
    let answer = http::post("https://events.example.com/v1/orders")
        .json(&json!({ "event": event, "mac": mac }))
        .send()?
        .error_for_status()?;
    Ok(Delivered { status: answer.status() })
}

/// For whom a ticket is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Visitor {
    /// The visitor's id.
    pub subject: String,
}

/// A ticket.
#[derive(Serialize, JsonSchema)]
pub struct Ticket {
    /// The ticket, a JWT: good for two minutes, at the partner's site.
    pub ticket: String,
}

/// Makes a ticket with which a visitor is known at the partner's site.
#[tool(read_only)]
pub fn ticket(visitor: Visitor) -> Result<Ticket, ToolError> {
    Ok(Ticket { ticket: signing::jwt("tickets", &[("sub", &visitor.subject)])? })
}

/// Which report.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Its key, such as `2026/november.csv`, not percent-encoded.
    pub key: String,
    /// How long the link is to be good, in seconds; at most 300.
    pub expires_s: u32,
}

/// A link.
#[derive(Serialize, JsonSchema)]
pub struct Link {
    /// The URL: whoever has it may read the report until it is over.
    pub url: String,
}

/// Makes a link by which a report can be read for a few minutes, without any other right.
#[tool(read_only)]
pub fn link(report: Report) -> Result<Link, ToolError> {
    let mut url = "https://reports.s3.eu-west-1.amazonaws.com".to_owned();
    for segment in report.key.split('/') {
        url.push('/');
        url.push_str(&keybearer_guest::encode::segment(segment)?);
    }
    Ok(Link { url: signing::presign("reports", Method::Get, &url, report.expires_s)? })
}

keybearer_guest::export!(deliver, ticket, link);

#[cfg(test)]
mod tests;
