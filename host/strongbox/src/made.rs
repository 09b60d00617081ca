//! What was signed for a guest: a secret of the call's own (threats X10). The guest holds it; it is looked for in every
//! answer that the call hears after, in its log and in its result, of which only a slot that is for the caller lets it
//! be a part. Not for the keys: those are looked for by `scrub/sets.rs`.

use std::sync::Arc;

use keybearer_gate::Withheld;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::Reply;
use crate::ScrubSet;
use crate::UseGuard;
use crate::scrub::scrub_bytes;
use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Something that was signed, before it is in the guest's hands. Holds the guard of its key's version: a revocation
/// waits until it was handed over, or thrown away.
#[must_use]
pub struct Made {
    whole: Secret,
    /// By what it is known again, in every form: without this part, the rest is of no use.
    marks: Vec<Zeroizing<Vec<u8>>>,
    for_caller: bool,
    guard: Option<UseGuard>,
}

assert_lacks!(Made: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

/// What a guest asked to have signed, for it alone.
#[must_use]
pub struct Signature(Secret);

assert_lacks!(Signature: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

impl Made {
    pub(crate) fn mac(tag: &[u8]) -> Self {
        // A list of numbers is how JSON has bytes of which nobody made a text.
        let numbers: Vec<_> = tag.iter().map(u8::to_string).collect();
        let marks = [tag.to_vec(), numbers.join(",").into_bytes(), numbers.join(", ").into_bytes()];
        Self::of(Secret::take(tag.to_vec()), marks.map(Zeroizing::new).into())
    }

    /// Of a JWT the last part, its signature; none if it has no parts.
    pub(crate) fn jwt(jwt: Secret) -> Option<Self> {
        let dot = jwt.expose().iter().rposition(|byte| *byte == b'.')?;
        let signature = Zeroizing::new(jwt.expose()[dot + 1..].to_vec());
        Some(Self::of(jwt, vec![signature]))
    }

    pub(crate) fn url(url: Vec<u8>, signature: String) -> Self {
        Self::of(Secret::take(url), vec![Zeroizing::new(signature.into_bytes())])
    }

    fn of(whole: Secret, marks: Vec<Zeroizing<Vec<u8>>>) -> Self {
        Self { whole, marks, for_caller: false, guard: None }
    }

    /// Under which guard it was made, and whether its slot lets it be a part of the result.
    pub(crate) fn under(self, for_caller: bool, guard: Option<UseGuard>) -> Self {
        Self { for_caller, guard, ..self }
    }

    /// Whether its key was revoked while it was made: then it is thrown away.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.guard.as_ref().is_some_and(UseGuard::is_cancelled)
    }

    /// Hands it over, and lets the guard go.
    pub fn hand_over(self) -> Signature {
        Signature(self.whole)
    }
}

impl Signature {
    /// The bytes, into the guest's memory: a MAC as it is, a JWT and a URL as text.
    #[must_use]
    pub fn into_guest(self) -> Vec<u8> {
        self.0.expose().to_vec()
    }
}

/// Everything that was signed for the guest of one call.
#[derive(Default)]
pub struct MadeInCall(Mutex<All>);

#[derive(Default)]
struct All {
    marks: Vec<Zeroizing<Vec<u8>>>,
    /// Without those that are for the caller.
    kept_back: Vec<Zeroizing<Vec<u8>>>,
    /// Whole, as the caller may have them.
    for_caller: Vec<Zeroizing<Vec<u8>>>,
    /// Of the marks; made when it is asked for, and anew when there are more.
    set: Option<Arc<ScrubSet>>,
}

impl MadeInCall {
    /// Takes note of what is about to be handed over.
    pub fn note(&self, made: &Made) {
        let mut all = self.0.lock();
        all.marks.extend(made.marks.iter().cloned());
        if made.for_caller {
            all.for_caller.push(Zeroizing::new(made.whole.expose().to_vec()));
        } else {
            all.kept_back.extend(made.marks.iter().cloned());
        }
        all.set = None;
    }

    /// Takes all of it out of an answer; returns at how many places.
    pub fn scrub_reply(&self, reply: &mut Reply) -> u64 {
        let Some(set) = self.set() else { return 0 };
        let before = reply.headers.len();
        reply.headers.retain(|(name, _)| !set.holds(name.as_bytes()));
        let mut count = (before - reply.headers.len()) as u64;
        count += reply.headers.iter_mut().map(|(_, value)| scrub_bytes(&set, value)).sum::<u64>();
        count + scrub_bytes(&set, &mut reply.body)
    }

    /// Takes all of it out of a text that is not the result: a log line, an error's words.
    pub fn scrub_text(&self, text: &mut String) -> u64 {
        self.set().map_or(0, |set| crate::scrub_text(&set, text))
    }

    /// Takes the values of `credentials`, and what is not for the caller, out of a result. What is for the caller
    /// stays whole where it stands as it was made: the id of an access key is a part of the URL that it signed.
    pub fn scrub_result(&self, credentials: &ScrubSet, text: &mut String) -> u64 {
        let (for_caller, kept_back) = {
            let all = self.0.lock();
            (all.for_caller.clone(), all.kept_back.clone())
        };
        if for_caller.is_empty() {
            return crate::scrub_text(credentials, text) + self.scrub_text(text);
        }
        let count = crate::scrub::scrub_text_but(credentials, &for_caller, text);
        if kept_back.is_empty() { count } else { count + crate::scrub_text(&ScrubSet::of(&kept_back), text) }
    }

    /// None if nothing was made.
    fn set(&self) -> Option<Arc<ScrubSet>> {
        let mut all = self.0.lock();
        if all.marks.is_empty() {
            return None;
        }
        let set = all.set.take().unwrap_or_else(|| Arc::new(ScrubSet::of(&all.marks)));
        all.set = Some(Arc::clone(&set));
        Some(set)
    }
}

impl Withheld for MadeInCall {
    fn take_out_of(&self, text: &mut String) {
        self.scrub_text(text);
    }
}
