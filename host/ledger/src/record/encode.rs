//! The inner text of a record's JSON object, without braces.

use std::fmt::Display;
use std::io::Write as _;

use keybearer_gate::Refused;
use serde::Serialize;

use super::DispatchFacts;
use super::Facts;

/// Most records are shorter; one growth of the buffer is the exception.
const TYPICAL_BYTES: usize = 768;

/// What an end adds, typically.
const OUTCOME_BYTES: usize = 256;

/// The fields of a call.
pub(crate) fn facts(facts: &Facts) -> Vec<u8> {
    let mut text = Vec::with_capacity(TYPICAL_BYTES);
    push_facts(&mut text, facts);
    text
}

/// The fields of a dispatch.
pub(crate) fn dispatch(dispatch: &DispatchFacts) -> Vec<u8> {
    let mut text = facts(&dispatch.facts);
    text_of(&mut text, "dispatch", &[dispatch.dispatch.as_str()]);
    json(&mut text, "purpose", &dispatch.purpose);
    if let Some(method) = dispatch.method {
        text_of(&mut text, "method", &[method.as_str()]);
    }
    json(&mut text, "place", &dispatch.place);
    if let Some(address) = dispatch.address {
        plain(&mut text, "address", address);
    }
    if let Some(signed) = &dispatch.signed {
        json(&mut text, "signed", signed);
    }
    if let Some(credential) = &dispatch.credential {
        text_of(&mut text, "credential", &[credential.as_str()]);
    }
    if let Some(slot) = &dispatch.slot {
        text_of(&mut text, "slot", &[slot.as_str()]);
    }
    if let Some(grant) = &dispatch.grant {
        text_of(&mut text, "grant", &[grant.as_str()]);
    }
    if let Some(version) = dispatch.version {
        json(&mut text, "version", &version);
    }
    if let Some(epoch) = dispatch.epoch {
        json(&mut text, "epoch", &epoch);
    }
    if let Some(svid) = &dispatch.svid {
        json(&mut text, "svid", svid);
    }
    text
}

/// The fields of a refusal.
pub(crate) fn refusal(who: &Facts, refused: &Refused) -> Vec<u8> {
    let mut text = facts(who);
    if let Some(method) = refused.method() {
        text_of(&mut text, "method", &[method.as_str()]);
    }
    json(&mut text, "place", refused.place());
    json(&mut text, "refusal", refused.refusal());
    text
}

/// The fields of anything, after those that are there.
pub(crate) fn extend(mut text: Vec<u8>, more: &impl Serialize) -> Vec<u8> {
    let start = text.len();
    serde_json::to_writer(&mut text, more).expect("a record has string keys and a vector takes every write");
    text.pop();
    if start == 0 {
        text.remove(0);
    } else {
        text[start] = b',';
    }
    text
}

/// The same, after those of an earlier record.
pub(crate) fn extend_shared(text: &[u8], more: &impl Serialize) -> Vec<u8> {
    let mut whole = Vec::with_capacity(text.len() + OUTCOME_BYTES);
    whole.extend_from_slice(text);
    extend(whole, more)
}

fn push_facts(text: &mut Vec<u8>, facts: &Facts) {
    text_of(text, "tenant", &[facts.tenant.as_str()]);
    // A subject of a JWT is text of somebody else's making: it alone needs escaping.
    json(text, "principal", facts.principal.as_str());
    text_of(text, "run", &[facts.run.as_str()]);
    text_of(text, "call", &[facts.call.as_str()]);
    text_of(text, "tool", &[facts.tool.package.as_str(), ".", facts.tool.tool.as_str()]);
    text_of(text, "package", &["blake3:", &facts.package.to_hex()]);
}

fn key(text: &mut Vec<u8>, name: &str) {
    if !text.is_empty() {
        text.push(b',');
    }
    text.push(b'"');
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\":");
}

/// A string whose alphabet has nothing to escape: ids, names, methods. Without the formatter, as each call has dozens.
fn text_of(text: &mut Vec<u8>, name: &str, parts: &[&str]) {
    key(text, name);
    text.push(b'"');
    parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
    text.push(b'"');
}

/// The same, of what has no text: addresses.
fn plain(text: &mut Vec<u8>, name: &str, value: impl Display) {
    key(text, name);
    write!(text, "\"{value}\"").expect("a vector takes every write");
}

fn json<T: Serialize + ?Sized>(text: &mut Vec<u8>, name: &str, value: &T) {
    key(text, name);
    serde_json::to_writer(text, value).expect("a vector takes every write");
}
