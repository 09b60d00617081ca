//! An exchange: one request of the host's own to a place where secrets come from, and what its answer
//! holds. It is a description. Secrets stand in it by name; their values are in the strongbox, which puts
//! them on the request and takes new ones out of the answer, so that whoever writes down how a source is
//! asked never sees one.

use keybearer_contract::CredentialId;
use keybearer_contract::Method;
use keybearer_contract::Scheme;
use keybearer_contract::SigningAlgorithm;
use serde_json::Value;

use crate::Attach;
use crate::Cleared;
use crate::CredentialRecord;
use crate::Facts;
use crate::How;
use crate::Refusal;
use crate::Target;
use crate::clear::ClearedParts;

/// One request to a source, and what to read from its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// Where to. From the recipe or the operator's configuration, never from an answer.
    pub target: Target,
    /// Header fields without a secret, lower-case.
    pub headers: Vec<(&'static str, String)>,
    /// How the host proves who it is.
    pub auth: Auth,
    /// The body.
    pub body: ExchangeBody,
    /// What its answer holds.
    pub answer: AnswerShape,
}

/// A secret, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingredient {
    /// The credential's stored value.
    Stored,
    /// What is before its first colon.
    StoredUser,
    /// What is after its first colon.
    StoredPassword,
    /// What is after its last line end: where a value has two parts, the second.
    StoredLastLine,
    /// What is before its last line end: the first part, be it a key of many lines.
    StoredOtherLines,
    /// What an earlier answer left under this name.
    Held(&'static str),
    /// An access key of AWS that an earlier answer left: its id, its secret and its session's token under these names. It
    /// signs, and stands nowhere itself.
    HeldAwsKeys([&'static str; 3]),
    /// A JWT that the host signs (RFC 7519), made anew for each request.
    Assertion(Box<Assertion>),
}

/// What a JWT of the host's says, and what signs it. Its `iat` is now, its `jti` is random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// How it is signed.
    pub alg: SigningAlgorithm,
    /// The private key, in PEM or as a JWK.
    pub key: Box<Ingredient>,
    /// The key's id, for the header.
    pub kid: Option<String>,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`.
    pub audience: String,
    /// From `iat` to `exp`, in seconds.
    pub life_s: u64,
}

/// How a request to a source proves who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// It does not, or its body does.
    None,
    /// `Authorization: Bearer …` (RFC 6750).
    Bearer(Ingredient),
    /// `Authorization: Basic …` of a client, both parts form-encoded (RFC 6749 §2.3.1).
    Client {
        /// The client's id.
        id: String,
        /// Its secret.
        secret: Ingredient,
    },
    /// A header field of its own, lower-case.
    Header(&'static str, Ingredient),
    /// The connection itself, by a client certificate: one private key and its chain in PEM (RFC 8705).
    ClientCertificate(Ingredient),
    /// A signature over the whole request (AWS Signature Version 4).
    Sigv4 {
        /// As in the service's endpoint.
        region: String,
        /// The service's signing name.
        service: &'static str,
        /// The access key: id, secret and perhaps a session token, on lines of their own.
        keys: Box<Ingredient>,
    },
}

/// The body of a request to a source.
#[derive(Debug, Clone, PartialEq)]
pub enum ExchangeBody {
    /// None.
    None,
    /// `application/x-www-form-urlencoded`.
    Form(Vec<(&'static str, Field)>),
    /// A JSON object.
    Json(Vec<(&'static str, Field)>),
}

/// A member of a body.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// Text in the open.
    Text(String),
    /// Any JSON value in the open; in a form, its text.
    Json(Value),
    /// A secret.
    Secret(Ingredient),
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// What an answer holds, and where. Nothing else is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerShape {
    /// How it is written.
    pub format: AnswerFormat,
    /// Secrets, to be held under a name.
    pub secrets: Vec<At>,
    /// What may be told to the source's code: numbers, words of a protocol, references.
    pub facts: Vec<At>,
    /// Where an answer of failure has its code, and the codes that may be repeated.
    pub error: Option<(&'static [&'static str], &'static [&'static str])>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerFormat {
    /// A JSON object.
    #[default]
    Json,
    /// Elements of XML; a path begins with the root's name.
    Xml,
}

/// Something in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The name under which it is held or told.
    pub name: &'static str,
    /// The members that lead to it, outermost first.
    pub path: Vec<String>,
    /// What stands there is a text that is a JSON object: the member of that one.
    pub within: Option<String>,
    /// Whether an answer without it is malformed.
    pub required: bool,
}

impl Exchange {
    /// A request without body or proof.
    #[must_use]
    pub fn new(method: Method, target: Target) -> Self {
        let (auth, body, answer) = (Auth::None, ExchangeBody::None, AnswerShape::default());
        Self { method, target, headers: Vec::new(), auth, body, answer }
    }

    /// With this proof.
    #[must_use]
    pub fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// With this body.
    #[must_use]
    pub fn body(self, body: ExchangeBody) -> Self {
        Self { body, ..self }
    }

    /// With this header field, lower-case.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Answered in XML.
    #[must_use]
    pub fn xml(mut self) -> Self {
        self.answer.format = AnswerFormat::Xml;
        self.header("accept", "text/xml")
    }

    /// The answer must hold a secret there, which is held under this name.
    #[must_use]
    pub fn holds(mut self, name: &'static str, path: &[&str]) -> Self {
        self.answer.secrets.push(at(name, path, true));
        self
    }

    /// The answer must hold a text there which is a JSON object, and a secret under this name in it.
    #[must_use]
    pub fn holds_within(mut self, name: &'static str, path: &[&str], member: &str) -> Self {
        self.answer.secrets.push(At { within: Some(member.to_owned()), ..at(name, path, true) });
        self
    }

    /// The answer may hold a secret there.
    #[must_use]
    pub fn may_hold(mut self, name: &'static str, path: &[&str]) -> Self {
        self.answer.secrets.push(at(name, path, false));
        self
    }

    /// The answer may tell something there.
    #[must_use]
    pub fn tells(mut self, name: &'static str, path: &[&str]) -> Self {
        self.answer.facts.push(at(name, path, false));
        self
    }

    /// An answer of failure has its code there; these codes may be repeated.
    #[must_use]
    pub fn fails_with(mut self, path: &'static [&'static str], codes: &'static [&'static str]) -> Self {
        self.answer.error = Some((path, codes));
        self
    }
}

fn at(name: &'static str, path: &[&str], required: bool) -> At {
    At { name, path: path.iter().map(|&part| part.to_owned()).collect(), within: None, required }
}

/// What of an exchange the strongbox completes.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// How the request proves who sends it.
    pub auth: Auth,
    /// Its body.
    pub body: ExchangeBody,
}

/// Clears a request of the host's own to a source of this credential. Nothing that a guest said is part of it.
///
/// # Errors
/// [`Refusal::NoBinding`] if it would go out without TLS, or for another tenant than the credential's.
pub fn clear_exchange(facts: &Facts, record: &CredentialRecord, exchange: Exchange) -> Result<Cleared, Refusal> {
    clear_for(facts, record.id.clone(), record.tenant == facts.tenant, exchange)
}

fn clear_for(facts: &Facts, credential: CredentialId, is_own: bool, exchange: Exchange) -> Result<Cleared, Refusal> {
    let Exchange { method, target, headers, auth, body, answer: _ } = exchange;
    if !is_own || target.destination().scheme() != Scheme::Https {
        return Err(Refusal::NoBinding { method: method.as_str().to_owned(), place: target.place() });
    }
    let mut fields = vec![("accept".to_owned(), b"application/json".to_vec())];
    match &body {
        ExchangeBody::None => {}
        ExchangeBody::Form(_) => {
            fields.push(("content-type".to_owned(), b"application/x-www-form-urlencoded".to_vec()));
        }
        ExchangeBody::Json(_) => fields.push(("content-type".to_owned(), b"application/json".to_vec())),
    }
    for (name, value) in headers {
        fields.retain(|(known, _)| known != name);
        fields.push((name.to_owned(), value.into_bytes()));
    }
    let (destination, path, query) = target.into_parts();
    let parts = ClearedParts { destination, method, path, query, headers: fields, body: None };
    let how = How::Exchange(Box::new(Carried { auth, body }));
    let attach = Attach { slot: None, grant: None, credential, how };
    Ok(Cleared::of_host(facts.clone(), parts, attach))
}
