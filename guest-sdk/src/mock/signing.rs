//! Signing by the mock host: answers by closures, records what the tool asked. It signs nothing itself: a test says
//! what comes of it, and looks at what was asked.

use super::Host;
use super::running;
use crate::http::Method;
use crate::signing::Error;
use crate::signing::GuestFault;

/// What a tool asked to have signed, and of which slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// [`crate::signing::mac`]
    Mac {
        /// The slot.
        slot: String,
        /// The message.
        message: Vec<u8>,
    },
    /// [`crate::signing::jwt`]
    Jwt {
        /// The slot.
        slot: String,
        /// Names and values.
        claims: Vec<(String, String)>,
    },
    /// [`crate::signing::presign`]
    Presign {
        /// The slot.
        slot: String,
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// How long it is to be good, in seconds.
        expires_s: u32,
    },
}

impl Signing {
    /// The slot.
    #[must_use]
    pub fn slot(&self) -> &str {
        match self {
            Self::Mac { slot, .. } | Self::Jwt { slot, .. } | Self::Presign { slot, .. } => slot,
        }
    }
}

pub(super) type Signer = Box<dyn Fn(&Signing) -> Result<Vec<u8>, Error>>;

impl Host {
    /// Answers what is asked of this slot: with the bytes of a MAC, or the text of a JWT or a URL.
    #[must_use]
    pub fn signs(mut self, slot: &str, answer: impl Fn(&Signing) -> Result<Vec<u8>, Error> + 'static) -> Self {
        self.state_mut().signers.push((slot.to_owned(), Box::new(answer)));
        self
    }

    /// Everything that the tool asked to have signed, in order, refused ones included.
    #[must_use]
    pub fn signings(&self) -> Vec<Signing> {
        self.state.signings.borrow().clone()
    }
}

pub(crate) fn mac(slot: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
    ask(Signing::Mac { slot: slot.to_owned(), message: message.to_vec() })
}

pub(crate) fn jwt(slot: &str, claims: &[(&str, &str)]) -> Result<String, Error> {
    let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    text(ask(Signing::Jwt { slot: slot.to_owned(), claims })?)
}

pub(crate) fn presign(slot: &str, method: Method, url: &str, expires_s: u32) -> Result<String, Error> {
    if !super::rules::is_canonical(url) {
        return Err(Error::Guest(GuestFault::MalformedUrl));
    }
    text(ask(Signing::Presign { slot: slot.to_owned(), method, url: url.to_owned(), expires_s })?)
}

fn text(made: Vec<u8>) -> Result<String, Error> {
    Ok(String::from_utf8(made).expect("a JWT and a URL are text: mend the test's closure"))
}

fn ask(asked: Signing) -> Result<Vec<u8>, Error> {
    let state = running();
    state.signings.borrow_mut().push(asked.clone());
    match state.signers.iter().find(|(slot, _)| slot == asked.slot()) {
        Some((_, signer)) => signer(&asked),
        None => Err(Error::Denied),
    }
}
