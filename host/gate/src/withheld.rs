//! What a guest can say and no record may hold: what was signed for it. Records of where its requests went are made with
//! this in hand. Not for credentials: a guest has none to say.

use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature;
use keybearer_contract::Method;
use keybearer_contract::ToSign;

use crate::Refusal;

/// What must not be written down. Implemented by the room that can read it.
pub trait Withheld: Sync {
    /// Takes all of it out of a text.
    fn take_out_of(&self, text: &mut String);

    /// The text without it.
    fn without(&self, text: &str) -> String {
        let mut text = text.to_owned();
        self.take_out_of(&mut text);
        text
    }
}

/// Nothing: for requests of the host's own, of which no guest says a word.
#[derive(Debug, Clone, Copy)]
pub struct NothingWithheld;

impl Withheld for NothingWithheld {
    fn take_out_of(&self, _: &mut String) {}
}

/// A refusal, as records may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    method: Option<Method>,
    place: String,
    refusal: Refusal,
}

/// What a record names in place of a place.
pub(crate) const MAC_PLACE: &str = "signing:mac";
pub(crate) const JWT_PLACE: &str = "signing:jwt";
const CALL_PLACE: &str = "the call";

/// The longest place of a refused request that is kept.
const PLACE_CHARS_MAX: usize = 300;

/// The longest name of a guest's that is repeated.
const NAME_CHARS_MAX: usize = 64;

impl Refused {
    /// Of a request. Its URL is as the guest spelled it: query, fragment and user are left out.
    #[must_use]
    pub fn request(refusal: Refusal, request: &GuestRequest, withheld: &dyn Withheld) -> Self {
        Self::of(refusal, Some(request.method), place_of(&request.url), withheld)
    }

    /// Of a signature: of a URL where it goes, of what has no place which function it is.
    #[must_use]
    pub fn signature(refusal: Refusal, asked: &GuestSignature, withheld: &dyn Withheld) -> Self {
        let (method, place) = match &asked.what {
            ToSign::Message(_) => (None, MAC_PLACE.to_owned()),
            ToSign::Claims(_) => (None, JWT_PLACE.to_owned()),
            ToSign::Url { method, url, .. } => (Some(*method), place_of(url)),
        };
        Self::of(refusal, method, place, withheld)
    }

    /// Of a whole call, before its tool ran: for what the host found out by itself.
    #[must_use]
    pub fn call(refusal: Refusal) -> Self {
        Self::of(refusal, None, CALL_PLACE.to_owned(), &NothingWithheld)
    }

    /// Cut only after what is withheld was taken out: of a part it would not be known again.
    fn of(mut refusal: Refusal, method: Option<Method>, mut place: String, withheld: &dyn Withheld) -> Self {
        withheld.take_out_of(&mut place);
        cut(&mut place, PLACE_CHARS_MAX);
        match &mut refusal {
            Refusal::NoBinding { place, .. } => withheld.take_out_of(place),
            Refusal::HeaderNotAllowed { name }
            | Refusal::ParameterNotAllowed { name }
            | Refusal::ClaimNotAllowed { name } => {
                withheld.take_out_of(name);
                cut(name, NAME_CHARS_MAX);
            }
            // In the words of the host, the manifest or the tenant's administrator.
            Refusal::NotCanonical { .. }
            | Refusal::MalformedHeader { .. }
            | Refusal::Ambiguous
            | Refusal::NoGrant { .. }
            | Refusal::NotApproved { .. }
            | Refusal::ActionNotGranted { .. }
            | Refusal::CredentialUnusable { .. }
            | Refusal::CredentialExpired { .. }
            | Refusal::CredentialRevoked { .. }
            | Refusal::CredentialPending { .. }
            | Refusal::Reauthorise { .. }
            | Refusal::OutsideBinding { .. }
            | Refusal::WrongKind { .. }
            | Refusal::SessionUnsayable { .. }
            | Refusal::NoSvid { .. }
            | Refusal::NoSlot
            | Refusal::NotItsFunction { .. }
            | Refusal::MessageTooLarge { .. }
            | Refusal::MalformedClaim { .. }
            | Refusal::ExpiresOutOfRange { .. }
            | Refusal::SessionToken { .. }
            | Refusal::PrivateAddress
            | Refusal::SelfConnection
            | Refusal::UnknownName
            | Refusal::Stale
            | Refusal::Stopped => {}
        }
        Self { method, place, refusal }
    }

    /// The method, where there is one.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        self.method
    }

    /// Where to.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Why.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}

/// What may be kept of a URL as a guest spelled it: no query, no fragment, no user.
fn place_of(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme @ ("https" | "http"), rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        // Nothing tells a user from a host here.
        _ => "(not a URL)".to_owned(),
    }
}

fn cut(text: &mut String, chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that must not be written down.
    struct This(&'static str);

    impl Withheld for This {
        fn take_out_of(&self, text: &mut String) {
            *text = text.replace(self.0, "-");
        }
    }

    fn refused(refusal: Refusal, url: &str, withheld: &dyn Withheld) -> Refused {
        let request = GuestRequest { method: Method::Get, url: url.to_owned(), headers: Vec::new(), body: None };
        Refused::request(refusal, &request, withheld)
    }

    #[test]
    fn p10_what_is_kept_of_a_refused_url_has_no_query_fragment_or_user() {
        let kept = |url: &str| refused(Refusal::Ambiguous, url, &NothingWithheld).place;
        assert_eq!(kept("https://a.example/p?q=secret#f"), "https://a.example/p");
        assert_eq!(kept("https://user:pw@a.example/p"), "https://a.example/p");
        assert_eq!(kept("https://u:a@b@a.example/p"), "https://a.example/p");
        assert_eq!(kept("https://a.example/c@d"), "https://a.example/c@d");
        assert_eq!(kept("user:pw@host"), "(not a URL)");
        assert_eq!(kept("user:pw@https://host"), "(not a URL)");
        assert_eq!(kept(&format!("https://{}", "é".repeat(400))).chars().count(), 300);
    }

    #[test]
    fn x10_nothing_is_cut_before_what_is_withheld_was_taken_out() {
        let made = This("0123456789abcdef");
        let url = format!("https://a.example/{}0123456789abcdef", "a".repeat(PLACE_CHARS_MAX - 20));
        let place = refused(Refusal::Ambiguous, &url, &made).place;
        assert!(place.ends_with("a-") && place.len() < PLACE_CHARS_MAX, "{place}");
        let name = format!("{}0123456789abcdef", "x".repeat(NAME_CHARS_MAX - 8));
        for refusal in [
            Refusal::ClaimNotAllowed { name: name.clone() },
            Refusal::HeaderNotAllowed { name: name.clone() },
            Refusal::ParameterNotAllowed { name: name.clone() },
            Refusal::NoBinding { method: "GET".to_owned(), place: url.clone() },
        ] {
            let said = refused(refusal, "https://a.example/", &made).refusal.to_string();
            assert!(!said.contains("0123") && said.contains('-'), "{said}");
        }
    }
}
