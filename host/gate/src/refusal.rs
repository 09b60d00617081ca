//! Why a request of a guest was refused. The guest hears one `denied` for nearly all of these; the
//! reason is recorded, and `explain` tells it to the tenant's administrator (P10).

use serde::Deserialize;
use serde::Serialize;

use keybearer_contract::SlotName;

use crate::Standing;

/// Why a request was refused; nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The URL is not in canonical form. The guest hears this one: it is its own spelling.
    #[error("the URL is not in canonical form: {why}")]
    NotCanonical {
        /// Which rule.
        why: String,
    },
    /// A header is not fit for the wire. The guest hears this one.
    #[error("header {index} is not fit for the wire")]
    MalformedHeader {
        /// Which, from 0; its text is not repeated.
        index: usize,
    },
    /// Neither a slot nor the allowlist names this place.
    #[error("no binding names {method} {place}")]
    NoBinding {
        /// The method.
        method: String,
        /// Scheme, host, port and path.
        place: String,
    },
    /// Two slots name this place: it would carry two credentials.
    #[error("more than one slot binds this place")]
    Ambiguous,
    /// The slot has no grant of this tenant.
    #[error("slot `{slot}` has no grant: give one with `keybearer grant add`")]
    NoGrant {
        /// The slot.
        slot: SlotName,
    },
    /// The grant was approved for less than this version of the package asks.
    #[error("the grant of slot `{slot}` does not cover this version: look at the differences and approve them")]
    NotApproved {
        /// The slot.
        slot: SlotName,
    },
    /// The grant does not allow this tool.
    #[error("the grant of slot `{slot}` does not allow this tool")]
    ActionNotGranted {
        /// The slot.
        slot: SlotName,
    },
    /// The credential is blank or gone, or just being changed.
    #[error("the credential of slot `{slot}` has no usable version: store one, or grant another credential")]
    CredentialUnusable {
        /// The slot.
        slot: SlotName,
    },
    /// The credential's end has come.
    #[error(
        "the credential of slot `{slot}` has expired: give it a later end with `keybearer credential change`, or grant another one"
    )]
    CredentialExpired {
        /// The slot.
        slot: SlotName,
    },
    /// The credential was revoked.
    #[error(
        "the credential of slot `{slot}` was revoked for good: store a new one, under another name, and grant that one"
    )]
    CredentialRevoked {
        /// The slot.
        slot: SlotName,
    },
    /// The credential waits for what makes it usable.
    #[error(
        "the credential of slot `{slot}` is pending: its account has not authorized it, or its client is not registered"
    )]
    CredentialPending {
        /// The slot.
        slot: SlotName,
    },
    /// The credential's account must authorize it again.
    #[error("the credential of slot `{slot}` must be authorized again: its issuer takes the refresh token no more")]
    Reauthorise {
        /// The slot.
        slot: SlotName,
    },
    /// The credential's owner does not let it go there.
    #[error("the credential of slot `{slot}` may not go there: its own binding is narrower than the slot's")]
    OutsideBinding {
        /// The slot.
        slot: SlotName,
    },
    /// The credential is not of the kind that the slot places.
    #[error("the credential of slot `{slot}` is of another kind than the slot places")]
    WrongKind {
        /// The slot.
        slot: SlotName,
    },
    /// What a session in a role may do cannot be said as narrowly as the slot binds it.
    #[error("the credential of slot `{slot}` gives no session: {why}")]
    SessionUnsayable {
        /// The slot.
        slot: SlotName,
        /// Why, and what helps.
        why: String,
    },
    /// The host holds no SVID of that id that is still valid, or the operator has not given the id to this tenant.
    #[error("there is no valid SVID of `{spiffe_id}` for this tenant")]
    NoSvid {
        /// The id that the recipe names.
        spiffe_id: String,
    },
    /// The guest set a header that is the host's, a slot's, or not on the binding's list.
    #[error("header `{name}` is not the guest's to set here")]
    HeaderNotAllowed {
        /// The name, in lower case; a record has 64 characters of it.
        name: String,
    },
    /// The guest set a query parameter that the slot owns, or one by which the method asks for more than the slot says.
    #[error("query parameter `{name}` is not the guest's to set here")]
    ParameterNotAllowed {
        /// The name, in lower case, without control characters; a record has 64 characters of it.
        name: String,
    },
    /// The package has no slot of the name by which a tool asked to sign.
    #[error("the package has no slot of that name")]
    NoSlot,
    /// The slot is there, and signs nothing, or nothing of that kind.
    #[error("slot `{slot}` does not sign that: its placement says what it is for")]
    NotItsFunction {
        /// The slot.
        slot: SlotName,
    },
    /// The message is longer than the slot signs. The guest hears this one.
    #[error("the message is longer than the {bytes_max} bytes that slot `{slot}` signs")]
    MessageTooLarge {
        /// The slot.
        slot: SlotName,
        /// Its limit.
        bytes_max: u32,
    },
    /// A claim is not printable, empty, too long, there twice, or one too many. The guest hears this one.
    #[error("claim {index} is not fit for a JWT")]
    MalformedClaim {
        /// Which, from 0; its text is not repeated.
        index: usize,
    },
    /// The guest claimed what is the manifest's or the host's to say.
    #[error("claim `{name}` is not the guest's to make here")]
    ClaimNotAllowed {
        /// The name, without control characters; a record has 64 characters of it.
        name: String,
    },
    /// The URL is to be good for no time, or for longer than the slot allows. The guest hears this one.
    #[error("slot `{slot}` signs URLs that are good for 1 to {most_s} seconds")]
    ExpiresOutOfRange {
        /// The slot.
        slot: SlotName,
        /// Its limit.
        most_s: u32,
    },
    /// The access key is a session's: its token would stand in the URL, for whoever reads it.
    #[error(
        "the access key of slot `{slot}` is of a session, whose token would stand in the URL: store a key of a user"
    )]
    SessionToken {
        /// The slot.
        slot: SlotName,
    },
    /// The name resolves to an address that is not public.
    #[error("the host resolves to an address that is not public")]
    PrivateAddress,
    /// The address is one of our own listeners.
    #[error("the host resolves to this server itself")]
    SelfConnection,
    /// The name does not exist. The guest hears `denied`: which names exist inside is not its to learn.
    #[error("the host's name does not resolve")]
    UnknownName,
    /// Between selection and use the credential was rotated or revoked.
    #[error("the credential changed while the request was being made")]
    Stale,
    /// The call's run or token was stopped.
    #[error("the call was stopped")]
    Stopped,
}

impl Refusal {
    /// Why a slot's credential cannot be used, by how it stands; none where it is not there.
    #[must_use]
    pub fn unusable(standing: Option<Standing>, slot: SlotName) -> Self {
        match standing {
            Some(Standing::Expired) => Self::CredentialExpired { slot },
            Some(Standing::Revoked) => Self::CredentialRevoked { slot },
            Some(Standing::Pending) => Self::CredentialPending { slot },
            Some(Standing::Reauthorise) => Self::Reauthorise { slot },
            Some(Standing::Active) | None => Self::CredentialUnusable { slot },
        }
    }
}
