//! Asks for signatures as a test says it, below the SDK's courtesies, and tells what it heard: masked, so that the test sees
//! every byte, and in every way in which a guest can say it openly.

use keybearer_guest::bindings::keybearer::tool::http as http_raw;
use keybearer_guest::bindings::keybearer::tool::signing as raw;
use keybearer_guest::prelude::*;

use crate::mask::mask;
use crate::wire;
use crate::wire::Said;

/// What is to be signed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The slot, byte for byte.
    slot: String,
    /// A message, for a MAC.
    #[serde(default)]
    message: Option<String>,
    /// So many bytes instead of a message.
    #[serde(default)]
    bytes: Option<usize>,
    /// Names and values, for a JWT.
    #[serde(default)]
    claims: Option<Vec<(String, String)>>,
    /// A URL to be signed, for PUT where `put` says so.
    #[serde(default)]
    url: Option<String>,
    /// Whether the URL is for PUT.
    #[serde(default)]
    put: bool,
    /// How long the URL is to be good.
    #[serde(default)]
    expires_s: u32,
    /// How often; once, if nothing is said.
    #[serde(default)]
    times: Option<u32>,
    /// Whether what was made is said openly in the result and in the log.
    #[serde(default)]
    openly: bool,
    /// Whether it is said in the result as a list of numbers.
    #[serde(default)]
    numbers: bool,
    /// Whether it is signed once more after the request.
    #[serde(default)]
    again: bool,
    /// Whether the tool fails with what was made in its words.
    #[serde(default)]
    fail: bool,
    /// Requests that are sent with what was made as their body, and in place of `{made}` in their URL; what is heard of them
    /// is given back masked.
    #[serde(default)]
    then: Vec<Said>,
    /// A slot that is asked for a JWT with a claim of which this is the name, and what was made stands in place of `{made}`.
    #[serde(default)]
    claim: Option<(String, String)>,
}

/// What was heard.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Out {
    /// `signed`, or who is at fault; one for each time.
    outcomes: Vec<String>,
    /// The last that was made: each byte turned by 0x5a, as hex.
    masked: String,
    /// The same, openly: as text, and as hex.
    openly: Option<(String, String)>,
    /// The same as a list of numbers.
    numbers: Option<Vec<u8>>,
    /// What came back of the requests that followed, masked.
    heard: Vec<String>,
}

// Shown by: signing::x10_what_was_signed_is_taken_out_of_all_that_a_guest_says_and_hears
/// Has something signed.
#[tool]
pub(crate) fn sign(args: Args) -> Result<Out, ToolError> {
    let mut outcomes = Vec::new();
    let mut made = Vec::new();
    for _ in 0..args.times.unwrap_or(1) {
        match once(&args) {
            Ok(bytes) => {
                made = bytes;
                outcomes.push("signed".to_owned());
            }
            Err(error) => outcomes.push(outcome(error)),
        }
    }
    let text = match std::str::from_utf8(&made) {
        Ok(text) => text.to_owned(),
        Err(_) => String::new(),
    };
    let hex = signing::hex(&made);
    if args.openly {
        log::info!("{text} {hex}");
    }
    if args.fail {
        return Err(ToolError::failed(format!("{text} {hex}")));
    }
    // Of a URL its signature, which is its end.
    let word = if text.is_empty() { &hex } else { text.rsplit('=').next().unwrap_or_default() };
    let mut heard = Vec::new();
    for said in args.then.clone() {
        let said = said.with_body(format!("{text} {hex}")).with_made(word);
        heard.push(mask(&wire::everything(&wire::send(said)?)));
    }
    if let Some((slot, name)) = &args.claim {
        let claim = raw::Claim { name: name.replace("{made}", word), value: "x".to_owned() };
        outcomes.push(raw::jwt(slot, &[claim]).map_or_else(outcome, |_| "signed".to_owned()));
    }
    if args.again {
        outcomes.push(once(&args).map_or_else(outcome, |_| "signed".to_owned()));
    }
    let (masked, openly) = (mask(&made), args.openly.then_some((text, hex)));
    Ok(Out { outcomes, masked, openly, numbers: args.numbers.then_some(made), heard })
}

fn once(args: &Args) -> Result<Vec<u8>, raw::Error> {
    if let Some(claims) = &args.claims {
        let claim = |(name, value): &(String, String)| raw::Claim { name: name.clone(), value: value.clone() };
        let claims: Vec<_> = claims.iter().map(claim).collect();
        return raw::jwt(&args.slot, &claims).map(String::into_bytes);
    }
    if let Some(url) = &args.url {
        let method = if args.put { http_raw::Method::Put } else { http_raw::Method::Get };
        return raw::presign(&args.slot, method, url, args.expires_s).map(String::into_bytes);
    }
    let message = match args.bytes {
        Some(bytes) => vec![b'm'; bytes],
        None => args.message.clone().unwrap_or_default().into_bytes(),
    };
    raw::mac(&args.slot, &message)
}

fn outcome(error: raw::Error) -> String {
    match error {
        raw::Error::Denied => "denied",
        raw::Error::Host => "host",
        raw::Error::Guest(fault) => match fault {
            raw::GuestFault::MessageTooLarge => "message too large",
            raw::GuestFault::MalformedClaim => "malformed claim",
            raw::GuestFault::MalformedUrl => "malformed url",
            raw::GuestFault::ExpiresOutOfRange => "expires out of range",
            raw::GuestFault::TooManyRequests => "too many requests",
            raw::GuestFault::TooManyBytes => "too many bytes",
        },
    }
    .to_owned()
}
