//! The inner text of a record's JSON object, without braces.

use std::fmt::Display;
use std::io::Write as _;

use keybearer_gate::Refused;
use serde::Serialize;

use super::DispatchFacts;
use super::Facts;

/// Most records are shorter; one growth of the buffer is the exception.
const TYPICAL_BYTES: usize = 768;

/// The fields of a call.
pub(crate) fn facts(facts: &Facts) -> Vec<u8> {
    let mut text = Vec::with_capacity(TYPICAL_BYTES);
    push_facts(&mut text, facts);
    text
}

/// The fields of a dispatch.
pub(crate) fn dispatch(dispatch: &DispatchFacts) -> Vec<u8> {
    let mut text = facts(&dispatch.facts);
    plain(&mut text, "dispatch", &dispatch.dispatch);
    json(&mut text, "purpose", &dispatch.purpose);
    if let Some(method) = dispatch.method {
        plain(&mut text, "method", method.as_str());
    }
    json(&mut text, "place", &dispatch.place);
    if let Some(address) = dispatch.address {
        plain(&mut text, "address", address);
    }
    if let Some(signed) = &dispatch.signed {
        json(&mut text, "signed", signed);
    }
    if let Some(credential) = &dispatch.credential {
        plain(&mut text, "credential", credential);
    }
    if let Some(slot) = &dispatch.slot {
        plain(&mut text, "slot", slot);
    }
    if let Some(grant) = &dispatch.grant {
        plain(&mut text, "grant", grant);
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
        plain(&mut text, "method", method.as_str());
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

fn push_facts(text: &mut Vec<u8>, facts: &Facts) {
    plain(text, "tenant", &facts.tenant);
    // A subject of a JWT is text of somebody else's making: it alone needs escaping.
    json(text, "principal", facts.principal.as_str());
    plain(text, "run", &facts.run);
    plain(text, "call", &facts.call);
    plain(text, "tool", &facts.tool);
    plain(text, "package", facts.package);
}

fn key(text: &mut Vec<u8>, name: &str) {
    if !text.is_empty() {
        text.push(b',');
    }
    text.push(b'"');
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\":");
}

/// A string whose alphabet has nothing to escape: ids, names, digests, methods, addresses.
fn plain(text: &mut Vec<u8>, name: &str, value: impl Display) {
    key(text, name);
    write!(text, "\"{value}\"").expect("a vector takes every write");
}

fn json<T: Serialize + ?Sized>(text: &mut Vec<u8>, name: &str, value: &T) {
    key(text, name);
    serde_json::to_writer(text, value).expect("a vector takes every write");
}
