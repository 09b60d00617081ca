//! Carrying: the secrets of the host's own request to a source go where its exchange says: into a header
//! field, a form, a JSON object. Not for guests' requests: where their credential goes, a slot says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use keybearer_gate::Auth;
use keybearer_gate::AwsKeys;
use keybearer_gate::Carried;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use zeroize::Zeroizing;

use crate::ClientIdentity;
use crate::PlaceRefused;
use crate::Vessel;
use crate::accept;
use crate::accept::user_and_password;
use crate::place::authorization;
use crate::place::client_pair;
use crate::place::form_encode;
use crate::secret::Secret;
use crate::sigv4::Scope;

/// The field and the body that an exchange adds to its request.
pub(crate) type Completed = (Option<(HeaderName, HeaderValue)>, Option<Zeroizing<Vec<u8>>>);

/// Completes a request to a source.
///
/// # Errors
/// [`PlaceRefused::WrongKind`] if a secret is not there that the exchange names, or not of its form.
pub(crate) fn complete(carried: &Carried, stored: Option<&Secret>, vessel: &Vessel) -> Result<Completed, PlaceRefused> {
    let open = |ingredient: &Ingredient| value_of(ingredient, stored, vessel).ok_or(PlaceRefused::WrongKind);
    let field = match &carried.auth {
        // A signature is over what is on the request: it comes last.
        Auth::None | Auth::ClientCertificate(_) | Auth::Sigv4 { .. } => None,
        Auth::Bearer(token) => Some((header::AUTHORIZATION, authorization("Bearer ", open(token)?)?)),
        Auth::Client { id, secret } => {
            let pair = client_pair(id, open(secret)?);
            let encoded = Zeroizing::new(STANDARD.encode(pair.expose()).into_bytes());
            Some((header::AUTHORIZATION, authorization("Basic ", &encoded)?))
        }
        Auth::Header(name, value) => Some((HeaderName::from_static(name), authorization("", open(value)?)?)),
    };
    let body = match &carried.body {
        ExchangeBody::None => None,
        ExchangeBody::Form(fields) => Some(form(fields, open)?),
        ExchangeBody::Json(fields) => Some(json(fields, open)?),
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
    let open = |ingredient: &Ingredient| value_of(ingredient, stored, vessel).ok_or(PlaceRefused::WrongKind);
    let keys = match keys {
        AwsKeys::Lines(lines) => accept::aws_keys(open(lines)?).ok_or(PlaceRefused::WrongKind)?,
        AwsKeys::Parts { id, secret, token } => {
            accept::AwsKeys { id: open(id)?, secret: open(secret)?, token: Some(open(token)?) }
        }
    };
    Ok(Some((Scope { region, service }, keys)))
}

fn value_of<'secret>(
    ingredient: &Ingredient,
    stored: Option<&'secret Secret>,
    vessel: &'secret Vessel,
) -> Option<&'secret [u8]> {
    let parts = || user_and_password(stored?.expose());
    match ingredient {
        Ingredient::Stored => stored.map(Secret::expose),
        Ingredient::StoredUser => parts().map(|(user, _)| user),
        Ingredient::StoredPassword => parts().map(|(_, password)| password),
        Ingredient::Held(name) => vessel.get(name).map(|secret| secret.expose()),
    }
}

fn form<'secret>(
    fields: &[(&'static str, Field)],
    open: impl Fn(&Ingredient) -> Result<&'secret [u8], PlaceRefused>,
) -> Result<Zeroizing<Vec<u8>>, PlaceRefused> {
    let mut text = Zeroizing::new(String::with_capacity(room(fields, &open)?));
    for (name, field) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        form_encode(name.as_bytes(), &mut text);
        text.push('=');
        match field {
            Field::Text(plain) => form_encode(plain.as_bytes(), &mut text),
            Field::Json(value) => form_encode(value.to_string().as_bytes(), &mut text),
            Field::Secret(ingredient) => form_encode(open(ingredient)?, &mut text),
        }
    }
    Ok(Zeroizing::new(std::mem::take(&mut *text).into_bytes()))
}

fn json<'secret>(
    fields: &[(&'static str, Field)],
    open: impl Fn(&Ingredient) -> Result<&'secret [u8], PlaceRefused>,
) -> Result<Zeroizing<Vec<u8>>, PlaceRefused> {
    let mut text = Zeroizing::new(Vec::with_capacity(room(fields, &open)?));
    text.push(b'{');
    for (index, (name, field)) in fields.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        let written = |result: serde_json::Result<()>| result.map_err(|_| PlaceRefused::Malformed);
        written(serde_json::to_writer(&mut *text, name))?;
        text.push(b':');
        match field {
            Field::Text(plain) => written(serde_json::to_writer(&mut *text, plain))?,
            Field::Json(value) => written(serde_json::to_writer(&mut *text, value))?,
            Field::Secret(ingredient) => {
                let value = std::str::from_utf8(open(ingredient)?).map_err(|_| PlaceRefused::WrongKind)?;
                written(serde_json::to_writer(&mut *text, value))?;
            }
        }
    }
    text.push(b'}');
    Ok(text)
}

/// More bytes than the body takes, so that it is never moved while it grows.
fn room<'secret>(
    fields: &[(&'static str, Field)],
    open: impl Fn(&Ingredient) -> Result<&'secret [u8], PlaceRefused>,
) -> Result<usize, PlaceRefused> {
    let mut room = 2;
    for (name, field) in fields {
        let length = match field {
            Field::Text(plain) => plain.len(),
            Field::Json(value) => value.to_string().len(),
            Field::Secret(ingredient) => open(ingredient)?.len(),
        };
        // The longest escape of a byte is `\u0000`.
        room += name.len() + 6 * length + 8;
    }
    Ok(room)
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
