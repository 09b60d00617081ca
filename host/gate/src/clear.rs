//! Clearing: a guest's request becomes a cleared one, or a refusal. This is the default deny (P4) of
//! everything that can be decided without the network: the place, the slot, the grant, the headers.
//! What is cleared names the credential to attach; it does not hold it.

use keybearer_contract::Allow;
use keybearer_contract::Binding;
use keybearer_contract::CredentialId;
use keybearer_contract::GrantId;
use keybearer_contract::GuestHeader;
use keybearer_contract::GuestRequest;
use keybearer_contract::HostRule;
use keybearer_contract::Manifest;
use keybearer_contract::Method;
use keybearer_contract::Placement;
use keybearer_contract::Slot;
use keybearer_contract::SlotName;

use crate::Carried;
use crate::CredentialDirectory;
use crate::CredentialRecord;
use crate::Destination;
use crate::Facts;
use crate::Grant;
use crate::Refusal;
use crate::Target;
use crate::Withheld;

/// What is to be attached to a cleared request, and by which right.
#[derive(Debug, Clone, PartialEq)]
pub struct Attach {
    /// The slot; none for the host's own request to a source.
    pub slot: Option<SlotName>,
    /// The grant; none for the host's own request to a source.
    pub grant: Option<GrantId>,
    /// The credential.
    pub credential: CredentialId,
    /// What is done with it.
    pub how: How,
}

/// What is done with the credential of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// A guest's request: it goes where the slot says.
    Slot(Placement),
    /// The host's own request to a source: secrets go where the exchange says.
    Exchange(Box<Carried>),
}

/// A request that may be sent, once its address is vetted and its intent recorded. Made here only;
/// not `Clone`: a retry is cleared anew.
pub struct Cleared {
    facts: Facts,
    parts: ClearedParts,
    attach: Option<Attach>,
}

/// What goes on the wire, without any credential.
#[derive(Clone, PartialEq, Eq)]
pub struct ClearedParts {
    /// Where to.
    pub destination: Destination,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, as given.
    pub query: Option<String>,
    /// Header fields, lower-case, checked.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Option<Vec<u8>>,
}

impl Cleared {
    /// The host's own request to a source.
    pub(crate) fn of_host(facts: Facts, parts: ClearedParts, attach: Attach) -> Self {
        Self { facts, parts, attach: Some(attach) }
    }

    /// The host's own request to somewhere that needs no credential.
    pub(crate) fn without_credential(facts: Facts, parts: ClearedParts) -> Self {
        Self { facts, parts, attach: None }
    }

    /// Whose request it is, for records.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where to.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.parts.destination
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.parts.method
    }

    /// The path, for records: a guest may have put into it what was signed for it.
    #[must_use]
    pub fn path(&self, withheld: &dyn Withheld) -> String {
        withheld.without(&self.parts.path)
    }

    /// The size of the body, for records.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.parts.body.as_ref().map_or(0, |body| body.len() as u64)
    }

    /// What is to be attached.
    #[must_use]
    pub fn attach(&self) -> Option<&Attach> {
        self.attach.as_ref()
    }

    /// Takes it apart, for the strongbox to place a credential on.
    #[must_use]
    pub fn into_parts(self) -> (Facts, ClearedParts, Option<Attach>) {
        (self.facts, self.parts, self.attach)
    }
}

/// By which rights a guest's request is cleared: as they are now.
#[derive(Clone, Copy)]
pub struct Rights<'now> {
    /// The tenant's grants of this package that hold and cover this version of it.
    pub grants: &'now [Grant],
    /// Where the terms of the credentials are looked up.
    pub credentials: &'now dyn CredentialDirectory,
}

/// Header fields that any guest may set: what content negotiation needs and nothing that selects an
/// account (threats P14).
const COMMON_HEADERS: &[&str] = &["accept", "accept-language", "content-type", "user-agent"];

/// Most servers refuse more than 100 (threats N19).
const HEADERS_MAX: usize = 64;

/// What common servers take for one field (threats N19).
const HEADER_VALUE_BYTES_MAX: usize = 8 << 10;

/// Decides whether a guest's request may be sent and with which credential.
///
/// # Errors
/// A [`Refusal`]; nothing has been opened or sent.
pub fn clear(
    facts: &Facts,
    manifest: &Manifest,
    rights: Rights<'_>,
    request: GuestRequest,
) -> Result<Cleared, Refusal> {
    let grants = rights.grants;
    let target: Target = request.url.parse().map_err(|error| Refusal::NotCanonical { why: format!("{error}") })?;
    let headers = check_headers(request.headers)?;
    let place = find_place(manifest, grants, request.method, &target)?;
    let (extra_headers, attach) = match place {
        Place::Allowed(allow) => {
            if grants.is_empty() {
                // Without any grant the tenant has not let this package out at all.
                return Err(no_binding(request.method, &target));
            }
            (&allow.headers, None)
        }
        Place::Bound(slot, binding) => {
            let attach = attach(facts, slot, grants)?;
            let record = rights.credentials.credential(&facts.tenant, &attach.credential);
            check_terms(record.as_deref(), slot, request.method, &target)?;
            (&binding.headers, Some(attach))
        }
    };
    for (name, _) in &headers {
        let owned = manifest.slots.iter().any(|slot| slot.placement.owns_header(name));
        if owned || !(COMMON_HEADERS.contains(&name.as_str()) || extra_headers.contains(name)) {
            return Err(Refusal::HeaderNotAllowed { name: name.clone() });
        }
    }
    if let Some(Attach { how: How::Slot(placement), .. }) = &attach {
        check_parameters(placement, request.method, target.query())?;
    }
    let (destination, path, query) = target.into_parts();
    let parts = ClearedParts { destination, method: request.method, path, query, headers, body: request.body };
    Ok(Cleared { facts: facts.clone(), parts, attach })
}

enum Place<'manifest> {
    Allowed(&'manifest Allow),
    Bound(&'manifest Slot, &'manifest Binding),
}

pub(crate) fn no_binding(method: Method, target: &Target) -> Refusal {
    Refusal::NoBinding { method: method.as_str().to_owned(), place: target.place() }
}

/// The one slot or allowlist entry that names the place. A slot goes before the allowlist: a request
/// that could carry a credential never goes out without it.
fn find_place<'manifest>(
    manifest: &'manifest Manifest,
    grants: &[Grant],
    method: Method,
    target: &Target,
) -> Result<Place<'manifest>, Refusal> {
    let mut bound = None;
    for slot in manifest.slots.iter().filter(|slot| slot.placement.is_on_requests()) {
        let grant = grants.iter().find(|grant| grant.slot.as_ref() == Some(&slot.name));
        let Some(binding) = slot.bindings.iter().find(|binding| names(binding, grant, method, target)) else {
            continue;
        };
        if bound.replace((slot, binding)).is_some() {
            return Err(Refusal::Ambiguous);
        }
    }
    if let Some((slot, binding)) = bound {
        return Ok(Place::Bound(slot, binding));
    }
    let destination = target.destination();
    let allow = manifest.allow.iter().find(|allow| {
        allow.scheme == destination.scheme()
            && allow.host == *destination.host()
            && allow.port() == destination.port()
            && allow.methods.contains(&method)
            && allow.paths.iter().any(|pattern| pattern.matches(target.path()))
    });
    allow.map(Place::Allowed).ok_or_else(|| no_binding(method, target))
}

pub(crate) fn names(binding: &Binding, grant: Option<&Grant>, method: Method, target: &Target) -> bool {
    let destination = target.destination();
    let host_fits = match &binding.host {
        HostRule::Exact(host) => host == destination.host(),
        // The grant fixes the host; without one nothing of this pattern is named.
        HostRule::FromGrant { .. } => grant
            .and_then(|grant| grant.base_url.as_ref())
            .is_some_and(|base| base.fits(binding) && base.destination() == destination),
    };
    host_fits
        && destination.scheme() == keybearer_contract::Scheme::Https
        && destination.port() == binding.port
        && binding.methods.contains(&method)
        && binding.paths.iter().any(|pattern| pattern.matches(target.path()))
}

pub(crate) fn attach(facts: &Facts, slot: &Slot, grants: &[Grant]) -> Result<Attach, Refusal> {
    let grant = grants
        .iter()
        .find(|grant| grant.slot.as_ref() == Some(&slot.name))
        .filter(|grant| grant.tenant == facts.tenant && grant.package == facts.tool.package)
        .ok_or_else(|| Refusal::NoGrant { slot: slot.name.clone() })?;
    if grant.actions.as_ref().is_some_and(|actions| !actions.contains(&facts.tool.tool)) {
        return Err(Refusal::ActionNotGranted { slot: slot.name.clone() });
    }
    let credential = grant.credential.clone().ok_or_else(|| Refusal::NoGrant { slot: slot.name.clone() })?;
    Ok(Attach {
        slot: Some(slot.name.clone()),
        grant: Some(grant.id.clone()),
        credential,
        how: How::Slot(slot.placement.clone()),
    })
}

/// What the slot asks ∩ what the credential's own terms allow.
pub(crate) fn check_terms(
    record: Option<&CredentialRecord>,
    slot: &Slot,
    method: Method,
    target: &Target,
) -> Result<(), Refusal> {
    match record {
        None => Err(Refusal::CredentialUnusable { slot: slot.name.clone() }),
        Some(record) if record.terms.allow(method, target) => Ok(()),
        Some(_) => Err(Refusal::OutsideBinding { slot: slot.name.clone() }),
    }
}

fn check_headers(headers: Vec<GuestHeader>) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    if headers.len() > HEADERS_MAX {
        return Err(Refusal::MalformedHeader { index: HEADERS_MAX });
    }
    let mut checked: Vec<(String, Vec<u8>)> = Vec::with_capacity(headers.len());
    for (index, header) in headers.into_iter().enumerate() {
        let name = header.name.to_ascii_lowercase();
        // RFC 9110 §5.6.2 `token`, less `_`, which some servers read as `-` (threats N20).
        let name_fits = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&byte));
        // RFC 9110 §5.5: visible characters, space and tab; no surrounding white space.
        let value = &header.value;
        let value_fits = value.len() <= HEADER_VALUE_BYTES_MAX
            && value.iter().all(|byte| *byte == b'\t' || (*byte >= 32 && *byte != 127))
            && !value.first().is_some_and(u8::is_ascii_whitespace)
            && !value.last().is_some_and(u8::is_ascii_whitespace);
        let twice = checked.iter().any(|(other, _)| *other == name);
        if !name_fits || !value_fits || twice {
            return Err(Refusal::MalformedHeader { index });
        }
        checked.push((name, header.value));
    }
    Ok(checked)
}

/// The guest must not set a parameter that the slot owns, in any spelling (threats N20, P09), and none by which the
/// method asks for another thing than the binding says.
pub(crate) fn check_parameters(placement: &Placement, method: Method, query: Option<&str>) -> Result<(), Refusal> {
    let pairs = query.unwrap_or_default().split(['&', ';']);
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let decoded: String = url::form_urlencoded::parse(name.as_bytes()).map(|(name, _)| name.into_owned()).collect();
        if placement.owns_parameter(&decoded) || placement.is_beyond(method, &decoded) {
            let name = decoded.chars().filter(|character| !character.is_control()).collect::<String>();
            return Err(Refusal::ParameterNotAllowed { name: name.to_ascii_lowercase() });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "clear_tests.rs"]
pub(crate) mod tests;
