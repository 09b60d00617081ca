//! Reading what a source answers. Secrets go into a vessel, facts are told; everything else is dropped
//! unread. Nothing of an answer is in an error but its status and a code that the exchange names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use keybearer_gate::AnswerFormat;
use keybearer_gate::AnswerShape;
use keybearer_gate::At;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::Raw;
use crate::ScrubFault;
use crate::Selected;
use crate::Strongbox;
use crate::Vessel;
use crate::secret::Secret;
use crate::xml;

/// Such answers are small; the longest tokens in use are JWTs of a few KiB, the longest values are chains of certificates.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A secret in an answer: a key in PEM with its chain fits.
const SECRET_BYTES_MAX: usize = 32 << 10;

/// What is told is a number, a word of a protocol, a reference.
const FACT_CHARS_MAX: usize = 512;

/// What an answer told, by the names of its exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The status.
    pub status: u16,
    facts: BTreeMap<&'static str, String>,
}

impl Told {
    /// What was told under that name: text as it is, numbers and words as JSON writes them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// A whole number, be it written as a number, with a fraction, or as text.
    ///
    /// # Errors
    /// [`AnswerRefused::Malformed`] if it is there and is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, AnswerRefused> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
        whole.parse().map(Some).map_err(|_| AnswerRefused::Malformed)
    }
}

/// Why a source's answer is of no use. Nothing of the answer is in it but its status and a known code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerRefused {
    /// The source refused.
    #[error("the source answered {status}{}", code.map(|code| format!(" {code}")).unwrap_or_default())]
    Status {
        /// Its status.
        status: u16,
        /// Its code, if it is one that the exchange names.
        code: Option<&'static str>,
    },
    /// It is larger than 64 KiB.
    #[error("the source's answer is too large")]
    TooLarge,
    /// It is not JSON, lacks what it must hold, or holds it twice.
    #[error("the source's answer is malformed")]
    Malformed,
    /// It is well-formed and not of the kind that was asked for.
    #[error("the source's answer is not what was asked for: {0}")]
    Unexpected(&'static str),
}

impl Strongbox {
    /// Reads an answer: its secrets into the vessel, its facts for the caller. Secrets are looked for in
    /// answers to guests from now on, whatever becomes of the fetch (threats X10).
    ///
    /// # Errors
    /// [`AnswerRefused`]; the vessel is as it was.
    pub fn read_answer(
        &self,
        raw: Raw,
        shape: &AnswerShape,
        selected: &Selected,
        vessel: &mut Vessel,
    ) -> Result<Told, AnswerRefused> {
        let (told, secrets) = read(raw, shape)?;
        for (name, secret) in secrets {
            let secret = Arc::new(secret);
            self.minted.see(selected, &secret);
            vessel.put(name, secret);
        }
        Ok(told)
    }
}

/// Reads an answer that holds no secret: its facts. For a request that carried none.
///
/// # Errors
/// [`AnswerRefused`].
pub fn read_facts(raw: Raw, shape: &AnswerShape) -> Result<Told, AnswerRefused> {
    read(raw, &AnswerShape { secrets: Vec::new(), ..shape.clone() }).map(|(told, _)| told)
}

fn read(raw: Raw, shape: &AnswerShape) -> Result<(Told, Secrets), AnswerRefused> {
    let status = raw.status;
    let body = crate::scrub::decoded_body(raw, ANSWER_BYTES_MAX).map_err(|fault| match fault {
        ScrubFault::TooLarge => AnswerRefused::TooLarge,
        _ => AnswerRefused::Malformed,
    })?;
    let body = Zeroizing::new(body);
    if !(200..300).contains(&status) || status == 206 {
        return Err(AnswerRefused::Status { status, code: known_code(shape, &body) });
    }
    let mut told = Told { status, facts: BTreeMap::new() };
    if shape.secrets.is_empty() && shape.facts.is_empty() {
        return Ok((told, Secrets::new()));
    }
    let secrets = match shape.format {
        AnswerFormat::Json => read_json(&body, shape, &mut told)?,
        AnswerFormat::Xml => read_xml(&body, shape, &mut told)?,
    };
    Ok((told, secrets))
}

type Secrets = Vec<(&'static str, Secret)>;

fn read_json(body: &[u8], shape: &AnswerShape, told: &mut Told) -> Result<Secrets, AnswerRefused> {
    let whole: &RawValue = serde_json::from_slice(body).map_err(|_| AnswerRefused::Malformed)?;
    let mut secrets = Vec::with_capacity(shape.secrets.len());
    for at in &shape.secrets {
        match find(whole, &at.path)? {
            Some(found) => match &at.within {
                Some(member) => secrets.push((at.name, secret_within(found, member)?)),
                None => secrets.push((at.name, secret(found)?)),
            },
            None => required(at)?,
        }
    }
    for at in &shape.facts {
        match find(whole, &at.path)? {
            Some(found) => drop(told.facts.insert(at.name, fact(found)?)),
            None => required(at)?,
        }
    }
    Ok(secrets)
}

fn read_xml(body: &[u8], shape: &AnswerShape, told: &mut Told) -> Result<Secrets, AnswerRefused> {
    let find = |at: &At| xml::text_at(body, &at.path).map_err(|_| AnswerRefused::Malformed);
    let mut secrets = Vec::with_capacity(shape.secrets.len());
    for at in &shape.secrets {
        match find(at)? {
            Some(found) => secrets.push((at.name, checked_secret(found)?)),
            None => required(at)?,
        }
    }
    for at in &shape.facts {
        match find(at)? {
            Some(found) => drop(told.facts.insert(at.name, checked_fact((*found).clone())?)),
            None => required(at)?,
        }
    }
    Ok(secrets)
}

fn required(at: &At) -> Result<(), AnswerRefused> {
    if at.required { Err(AnswerRefused::Malformed) } else { Ok(()) }
}

fn known_code(shape: &AnswerShape, body: &[u8]) -> Option<&'static str> {
    let (path, codes) = shape.error?;
    let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
    let code = match shape.format {
        AnswerFormat::Json => {
            let whole: &RawValue = serde_json::from_slice(body).ok()?;
            fact(find(whole, &path).ok()??).ok()?
        }
        AnswerFormat::Xml => (*xml::text_at(body, &path).ok()??).clone(),
    };
    codes.iter().copied().find(|known| *known == code)
}

/// What is at the end of a path; none if a member is missing or null.
fn find<'body>(value: &'body RawValue, path: &[String]) -> Result<Option<&'body RawValue>, AnswerRefused> {
    let mut value = value;
    for part in path {
        if value.get() == "null" {
            return Ok(None);
        }
        let members: Members<'body> = serde_json::from_str(value.get()).map_err(|_| AnswerRefused::Malformed)?;
        let Some(found) = members.0.get(part.as_str()) else { return Ok(None) };
        value = found;
    }
    Ok((value.get() != "null").then_some(value))
}

fn secret(found: &RawValue) -> Result<Secret, AnswerRefused> {
    let text: String = serde_json::from_str(found.get()).map_err(|_| AnswerRefused::Malformed)?;
    checked_secret(Zeroizing::new(text))
}

fn checked_secret(mut text: Zeroizing<String>) -> Result<Secret, AnswerRefused> {
    if text.is_empty() || text.len() > SECRET_BYTES_MAX {
        return Err(AnswerRefused::Malformed);
    }
    Ok(Secret::take(std::mem::take(&mut *text).into_bytes()))
}

/// A member of an object that is written as a text.
fn secret_within(found: &RawValue, member: &str) -> Result<Secret, AnswerRefused> {
    let text: String = serde_json::from_str(found.get()).map_err(|_| AnswerRefused::Malformed)?;
    let text = Zeroizing::new(text);
    let members: Members<'_> = serde_json::from_str(&text).map_err(|_| AnswerRefused::Malformed)?;
    members.0.get(member).ok_or(AnswerRefused::Malformed).and_then(|found| secret(found))
}

fn fact(found: &RawValue) -> Result<String, AnswerRefused> {
    let text = match found.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(found.get()).map_err(|_| AnswerRefused::Malformed)?,
        Some(b'{' | b'[') | None => return Err(AnswerRefused::Malformed),
        Some(_) => found.get().to_owned(),
    };
    checked_fact(text)
}

fn checked_fact(text: String) -> Result<String, AnswerRefused> {
    if text.len() > FACT_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(AnswerRefused::Malformed);
    }
    Ok(text)
}

/// The members of an object, none of them twice: which of two was meant is not for us to guess.
struct Members<'body>(BTreeMap<String, &'body RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}
