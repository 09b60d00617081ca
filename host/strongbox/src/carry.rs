//! Carrying: the secrets of the host's own request to a source go where its exchange says: into a header
//! field, a form, a JSON object. Not for guests' requests: where their credential goes, a slot says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use keybearer_contract::UnixMillis;
use keybearer_gate::Assertion;
use keybearer_gate::Auth;
use keybearer_gate::Carried;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::ClientIdentity;
use crate::PlaceRefused;
use crate::Vessel;
use crate::accept;
use crate::accept::key_and_token;
use crate::accept::user_and_password;
use crate::place::authorization;
use crate::place::client_pair;
use crate::place::form_encode;
use crate::secret::Secret;
use crate::sign::sign_jwt;
use crate::sigv4::Scope;

/// The field and the body that an exchange adds to its request.
pub(crate) type Completed = (Option<(HeaderName, HeaderValue)>, Option<Zeroizing<Vec<u8>>>);

/// Completes a request to a source.
///
/// # Errors
/// [`PlaceRefused::WrongKind`] if a secret is not there that the exchange names, or not of its form.
pub(crate) fn complete(carried: &Carried, stored: Option<&Secret>, vessel: &Vessel) -> Result<Completed, PlaceRefused> {
    let open = |ingredient: &Ingredient| opened(ingredient, stored, vessel).ok_or(PlaceRefused::WrongKind);
    let field = match &carried.auth {
        // A signature is over what is on the request: it comes last.
        Auth::None | Auth::ClientCertificate(_) | Auth::Sigv4 { .. } => None,
        Auth::Bearer(token) => Some((header::AUTHORIZATION, authorization("Bearer ", open(token)?.bytes())?)),
        Auth::Client { id, secret } => {
            let pair = client_pair(id, open(secret)?.bytes());
            let encoded = Zeroizing::new(STANDARD.encode(pair.expose()).into_bytes());
            Some((header::AUTHORIZATION, authorization("Basic ", &encoded)?))
        }
        Auth::Header(name, value) => Some((HeaderName::from_static(name), authorization("", open(value)?.bytes())?)),
    };
    let body = match &carried.body {
        ExchangeBody::None => None,
        ExchangeBody::Form(fields) => Some(form(&members(fields, open)?)),
        ExchangeBody::Json(fields) => Some(json(&members(fields, open)?)?),
    };
    Ok((field, body))
}

/// Who the connection itself proves that we are, where the exchange says so.
///
/// # Errors
/// [`PlaceRefused::WrongKind`] as for [`complete`].
pub(crate) fn identity(
    carried: &Carried,
    stored: Option<&Secret>,
    vessel: &Vessel,
) -> Result<Option<ClientIdentity>, PlaceRefused> {
    let Auth::ClientCertificate(ingredient) = &carried.auth else { return Ok(None) };
    let pem = match ingredient {
        Ingredient::Stored => stored,
        Ingredient::Held(name) => vessel.get(name).map(AsRef::as_ref),
        _ => None,
    };
    let pem = pem.ok_or(PlaceRefused::WrongKind)?;
    ClientIdentity::parse(pem).map(Some).map_err(|_| PlaceRefused::WrongKind)
}

/// What signs the request, where the exchange says so.
///
/// # Errors
/// [`PlaceRefused::WrongKind`] as for [`complete`].
pub(crate) fn signing<'secret>(
    carried: &'secret Carried,
    stored: Option<&'secret Secret>,
    vessel: &'secret Vessel,
) -> Result<Option<(Scope<'secret>, accept::AwsKeys<'secret>)>, PlaceRefused> {
    let Auth::Sigv4 { region, service, keys } = &carried.auth else { return Ok(None) };
    let keys = match &**keys {
        Ingredient::HeldAwsKeys(names) => {
            let [id, secret, token] = names.map(|name| vessel.get(name).map(|secret| secret.expose()));
            id.zip(secret).zip(token).and_then(|((id, secret), token)| accept::aws_session(id, secret, token))
        }
        keys => value_of(keys, stored, vessel).and_then(accept::aws_keys),
    };
    Ok(Some((Scope { region, service }, keys.ok_or(PlaceRefused::WrongKind)?)))
}

/// A secret while it is put on a request: one that lies somewhere, or one that was made for it.
pub(crate) enum Opened<'secret> {
    Lent(&'secret [u8]),
    Made(Secret),
}

impl Opened<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Made(secret) => secret.expose(),
        }
    }
}

/// What an ingredient stands for; none if it is not there.
pub(crate) fn opened<'secret>(
    ingredient: &Ingredient,
    stored: Option<&'secret Secret>,
    vessel: &'secret Vessel,
) -> Option<Opened<'secret>> {
    match ingredient {
        Ingredient::Assertion(assertion) => {
            let key = opened(&assertion.key, stored, vessel)?;
            assert(assertion, key.bytes()).map(Opened::Made)
        }
        lent => value_of(lent, stored, vessel).map(Opened::Lent),
    }
}

/// What an ingredient stands for that lies somewhere.
fn value_of<'secret>(
    ingredient: &Ingredient,
    stored: Option<&'secret Secret>,
    vessel: &'secret Vessel,
) -> Option<&'secret [u8]> {
    let parts = || user_and_password(stored?.expose());
    let lines = || key_and_token(stored?.expose());
    match ingredient {
        Ingredient::Stored => stored.map(Secret::expose),
        Ingredient::StoredUser => parts().map(|(user, _)| user),
        Ingredient::StoredPassword => parts().map(|(_, password)| password),
        Ingredient::StoredOtherLines => lines().map(|(key, _)| key),
        Ingredient::StoredLastLine => lines().map(|(_, token)| token),
        Ingredient::Held(name) => vessel.get(name).map(|secret| secret.expose()),
        Ingredient::HeldAwsKeys(_) | Ingredient::Assertion(_) => None,
    }
}

/// Signs what the host says of itself.
fn assert(assertion: &Assertion, key: &[u8]) -> Option<Secret> {
    let mut header = serde_json::Map::new();
    header.extend(assertion.kid.as_ref().map(|kid| ("kid".to_owned(), kid.as_str().into())));
    let mut nonce = [0_u8; 16];
    getrandom::fill(&mut nonce).expect("the kernel's random source does not fail once seeded");
    let now = UnixMillis::now().0 / 1_000;
    let claims = serde_json::json!({
        "iss": assertion.issuer,
        "sub": assertion.subject,
        "aud": assertion.audience,
        "iat": now,
        "exp": now + assertion.life_s,
        "jti": hex::encode(nonce),
    });
    sign_jwt(assertion.alg, key, header, claims.as_object()?).ok()
}

/// A member of a body, its secret open.
type Member<'fields, 'secret> = (&'static str, Shown<'fields, 'secret>);

enum Shown<'fields, 'secret> {
    Text(&'fields str),
    Json(&'fields Value),
    Secret(Opened<'secret>),
}

impl Shown<'_, '_> {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Json(value) => value.to_string().len(),
            Self::Secret(secret) => secret.bytes().len(),
        }
    }
}

fn members<'fields, 'secret>(
    fields: &'fields [(&'static str, Field)],
    open: impl Fn(&Ingredient) -> Result<Opened<'secret>, PlaceRefused>,
) -> Result<Vec<Member<'fields, 'secret>>, PlaceRefused> {
    let shown = |field: &'fields Field| {
        Ok(match field {
            Field::Text(plain) => Shown::Text(plain),
            Field::Json(value) => Shown::Json(value),
            Field::Secret(ingredient) => Shown::Secret(open(ingredient)?),
        })
    };
    fields.iter().map(|(name, field)| Ok((*name, shown(field)?))).collect()
}

fn form(members: &[Member<'_, '_>]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(String::with_capacity(room(members)));
    for (name, value) in members {
        if !text.is_empty() {
            text.push('&');
        }
        form_encode(name.as_bytes(), &mut text);
        text.push('=');
        match value {
            Shown::Text(plain) => form_encode(plain.as_bytes(), &mut text),
            Shown::Json(value) => form_encode(value.to_string().as_bytes(), &mut text),
            Shown::Secret(secret) => form_encode(secret.bytes(), &mut text),
        }
    }
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

fn json(members: &[Member<'_, '_>]) -> Result<Zeroizing<Vec<u8>>, PlaceRefused> {
    let mut text = Zeroizing::new(Vec::with_capacity(room(members)));
    text.push(b'{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        let written = |result: serde_json::Result<()>| result.map_err(|_| PlaceRefused::Malformed);
        written(serde_json::to_writer(&mut *text, name))?;
        text.push(b':');
        match value {
            Shown::Text(plain) => written(serde_json::to_writer(&mut *text, plain))?,
            Shown::Json(value) => written(serde_json::to_writer(&mut *text, value))?,
            Shown::Secret(secret) => {
                let value = std::str::from_utf8(secret.bytes()).map_err(|_| PlaceRefused::WrongKind)?;
                written(serde_json::to_writer(&mut *text, value))?;
            }
        }
    }
    text.push(b'}');
    Ok(text)
}

/// More bytes than the body takes, so that it is never moved while it grows. The longest escape of a byte is `\u0000`.
fn room(members: &[Member<'_, '_>]) -> usize {
    members.iter().map(|(name, value)| name.len() + 6 * value.len() + 8).sum::<usize>() + 2
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keybearer_gate::Auth;

    use super::*;

    fn completed(auth: Auth, body: ExchangeBody) -> Result<Completed, PlaceRefused> {
        let stored = Secret::take(b"role-id:secret \"id\" 0123456789".to_vec());
        let mut vessel = Vessel::default();
        vessel.put("token", Arc::new(Secret::take(b"hvs.canary-0123456789".to_vec())));
        complete(&Carried { auth, body }, Some(&stored), &vessel)
    }

    #[test]
    fn secrets_go_where_the_exchange_says_in_the_form_that_is_spoken_there() {
        let fields = || {
            vec![
                ("role_id", Field::Secret(Ingredient::StoredUser)),
                ("secret_id", Field::Secret(Ingredient::StoredPassword)),
                ("ttl", Field::Json(60.into())),
                ("note", Field::from("a b")),
            ]
        };
        let token = Ingredient::Held("token");
        let (field, body) =
            completed(Auth::Header("x-vault-token", token), ExchangeBody::Json(fields())).expect("fits");
        let (name, value) = field.expect("a field");
        assert_eq!((name.as_str(), value.as_bytes()), ("x-vault-token", b"hvs.canary-0123456789".as_slice()));
        assert!(value.is_sensitive());
        let json = r#"{"role_id":"role-id","secret_id":"secret \"id\" 0123456789","ttl":60,"note":"a b"}"#;
        assert_eq!(body.expect("a body").as_slice(), json.as_bytes());
        let (_, body) = completed(Auth::None, ExchangeBody::Form(fields())).expect("fits");
        let form = "role_id=role-id&secret_id=secret+%22id%22+0123456789&ttl=60&note=a+b";
        assert_eq!(body.expect("a body").as_slice(), form.as_bytes());
    }

    #[test]
    fn a_secret_that_is_not_there_is_not_left_out() {
        let missing = Auth::Bearer(Ingredient::Held("nothing"));
        assert_eq!(completed(missing, ExchangeBody::None).err(), Some(PlaceRefused::WrongKind));
        let none = complete(
            &Carried { auth: Auth::Bearer(Ingredient::Stored), body: ExchangeBody::None },
            None,
            &Vessel::default(),
        );
        assert_eq!(none.err(), Some(PlaceRefused::WrongKind));
    }
}
