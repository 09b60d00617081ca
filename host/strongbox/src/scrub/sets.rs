//! Scrub sets: the values to look for, made ready. A set is every undestroyed version of every credential
//! that a tenant granted to a tool, revoked and rotated ones too, and what was minted with them (threats
//! X10, X28). Making one takes longer than a dispatch, so they are kept, and made anew when an epoch, a
//! version or a minted token says that they are out of date.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use aho_corasick::AhoCorasickKind;
use aho_corasick::Input;
use aho_corasick::MatchKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keybearer_contract::CredentialId;
use keybearer_contract::IdMap;
use keybearer_contract::TenantId;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::StoredForm;
use keybearer_gate::VersionState;
use keybearer_gate::Yields;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::REDACTED;
use super::forms;
use super::forms::Edges;
use super::sieve::Sieve;
use super::views;
use super::views::View;
use crate::Derived;
use crate::Strongbox;
use crate::accept;
use crate::accept::VALUE_BYTES_MIN;
use crate::guards::GuardKey;
use crate::place;
use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Values to look for in answers. Opaque: it says nothing but whether something is in a text, and that
/// only by taking it out.
pub struct ScrubSet {
    /// None if there is nothing to look for.
    finder: Option<(Sieve, AhoCorasick)>,
    /// Of each pattern of the automaton.
    edges: Vec<Edges>,
    /// Whether a value itself looks encoded.
    with_single_escapes: bool,
    is_complete: bool,
}

assert_lacks!(ScrubSet: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

impl ScrubSet {
    /// A set with nothing to look for, for requests that carry no credential.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::of(&[]))
    }

    /// What was made for one request.
    pub(super) fn of_derived(derived: &Derived) -> Option<Self> {
        derived.secret().map(|secret| Self::of(&[Zeroizing::new(secret.expose().to_vec())]))
    }

    /// A set that cannot be used: nothing passes.
    fn incomplete() -> Self {
        Self { is_complete: false, ..Self::of(&[]) }
    }

    pub(crate) fn of(values: &[Zeroizing<Vec<u8>>]) -> Self {
        let mut needles = Vec::new();
        let mut with_single_escapes = false;
        for value in values {
            with_single_escapes |= views::looks_encoded(value);
            needles.extend(forms::needles_of(value));
        }
        if needles.is_empty() {
            return Self { finder: None, edges: Vec::new(), with_single_escapes, is_complete: true };
        }
        let automaton = AhoCorasick::builder()
            // Every match is wanted, also those that overlap, for the union of them is cut out.
            .match_kind(MatchKind::Standard)
            // Hex is written in either case, and names of headers arrive in lower case.
            .ascii_case_insensitive(true)
            // A DFA is faster and takes up to a megabyte for a handful of tokens; the sieve makes up for it.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(needles.iter().map(|needle| needle.bytes.as_slice()));
        let edges = needles.iter().map(|needle| needle.edges).collect();
        // It can be too large to be built, which no real set of credentials is; then nothing passes.
        let sieve = Sieve::of(needles.iter().map(|needle| needle.bytes.as_slice()));
        let finder = automaton.ok().map(|automaton| (sieve, automaton));
        Self { is_complete: finder.is_some(), finder, edges, with_single_escapes }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether a value stands in the text.
    pub(crate) fn holds(&self, text: &[u8]) -> bool {
        !self.places(text).is_empty()
    }

    /// Puts the marker where values stand; returns at how many places.
    pub(super) fn redact(&self, text: &mut Vec<u8>) -> u64 {
        self.redact_but(&[], text)
    }

    /// The same, but for places that lie within one of these texts.
    pub(super) fn redact_but(&self, keep: &[Zeroizing<Vec<u8>>], text: &mut Vec<u8>) -> u64 {
        let mut places = self.places(text);
        if !places.is_empty() {
            let kept: Vec<_> = keep
                .iter()
                .flat_map(|keep| memchr::memmem::find_iter(text, &**keep).map(|start| start..start + keep.len()))
                .collect();
            places.retain(|place| !kept.iter().any(|kept| kept.start <= place.start && place.end <= kept.end));
        }
        if places.is_empty() {
            return 0;
        }
        let mut redacted = Vec::with_capacity(text.len() + places.len() * REDACTED.len());
        let mut copied = 0;
        for place in &places {
            redacted.extend_from_slice(&text[copied..place.start]);
            redacted.extend_from_slice(REDACTED.as_bytes());
            copied = place.end;
        }
        redacted.extend_from_slice(&text[copied..]);
        *text = redacted;
        places.len() as u64
    }

    /// Where values stand: in order, apart from one another.
    fn places(&self, text: &[u8]) -> Vec<Range<usize>> {
        let Some((sieve, automaton)) = &self.finder else { return Vec::new() };
        let mut places: Vec<Range<usize>> = Vec::new();
        views::each_view(text, self.with_single_escapes, &mut |view| {
            sieve.each_part(&view.bytes, &mut |part| {
                for found in automaton.find_overlapping_iter(Input::new(&*view.bytes).range(part)) {
                    let edges = self.edges[found.pattern().as_usize()];
                    add(&mut places, view.in_text(widened(view, found.range(), edges)));
                }
            });
        });
        union(places)
    }
}

/// Takes in the characters beside a match that hold bits of the value, and the padding.
fn widened(view: &View<'_>, mut range: Range<usize>, edges: Edges) -> Range<usize> {
    let is_base64 =
        |at: usize| view.bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
    if edges.left && range.start > 0 && is_base64(range.start - 1) {
        range.start -= 1;
    }
    if edges.right && is_base64(range.end) {
        range.end += 1;
        while view.bytes.get(range.end) == Some(&b'=') {
            range.end += 1;
        }
    }
    range
}

fn add(places: &mut Vec<Range<usize>>, place: Range<usize>) {
    match places.last_mut() {
        // A text that is one long repetition has a match at each of its bytes.
        Some(last) if last.start <= place.start && place.start <= last.end => last.end = last.end.max(place.end),
        _ => places.push(place),
    }
}

fn union(mut places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    places.sort_unstable_by_key(|place| (place.start, place.end));
    places.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    places
}

/// Sets that were made.
#[derive(Default)]
pub(crate) struct ScrubSets(Mutex<Kept>);

/// A set of ten tokens takes some 100 KiB.
pub(super) const SETS_MAX: usize = 512;

#[derive(Default)]
struct Kept {
    sets: IdMap<SetKey, KeptSet>,
    /// Counts uses, to find the set that was not used for longest.
    uses: u64,
}

/// Whose, and of which credentials, in order.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SetKey {
    tenant: TenantId,
    credentials: Vec<CredentialId>,
}

struct KeptSet {
    stamps: Vec<Stamp>,
    set: Arc<ScrubSet>,
    last_use: u64,
}

/// What a set was made of, of one credential: if any of it differs, the set is out of date.
#[derive(PartialEq, Eq)]
struct Stamp {
    epoch: u64,
    versions: Vec<u32>,
    minted: u64,
}

impl ScrubSets {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().sets.len()
    }

    fn kept(&self, key: &SetKey, stamps: &[Stamp]) -> Option<Arc<ScrubSet>> {
        let mut kept = self.0.lock();
        kept.uses += 1;
        let uses = kept.uses;
        let found = kept.sets.get_mut(key).filter(|found| found.stamps == stamps)?;
        found.last_use = uses;
        Some(Arc::clone(&found.set))
    }

    fn forget(&self, tenant: &TenantId) -> u64 {
        let mut kept = self.0.lock();
        let before = kept.sets.len();
        kept.sets.retain(|key, _| key.tenant != *tenant);
        (before - kept.sets.len()) as u64
    }

    fn keep(&self, key: SetKey, stamps: Vec<Stamp>, set: &Arc<ScrubSet>) {
        let mut kept = self.0.lock();
        if kept.sets.len() >= SETS_MAX && !kept.sets.contains_key(&key) {
            let oldest = kept.sets.iter().min_by_key(|(_, set)| set.last_use).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| kept.sets.remove(&oldest));
        }
        let last_use = kept.uses;
        kept.sets.insert(key, KeptSet { stamps, set: Arc::clone(set), last_use });
    }
}

impl Strongbox {
    /// What to look for in what comes back to this tenant: every undestroyed version of these credentials,
    /// and what was minted with them. If one of them does not open, the set lets nothing pass.
    #[must_use]
    pub fn scrub_set(&self, tenant: &TenantId, credentials: &[CredentialId]) -> Arc<ScrubSet> {
        let mut credentials = credentials.to_vec();
        credentials.sort_unstable();
        credentials.dedup();
        // One that is gone has no version left to look for.
        let records: Vec<_> = credentials.iter().filter_map(|id| self.record(tenant, id)).collect();
        let stamps: Vec<Stamp> = records.iter().map(|record| self.stamp(record)).collect();
        let key = SetKey { tenant: tenant.clone(), credentials };
        if let Some(set) = self.scrub_sets.kept(&key, &stamps) {
            return set;
        }
        let mut values = Vec::new();
        for record in &records {
            if self.collect(record, &mut values).is_err() {
                tracing::error!(tenant = %tenant, credential = %record.id, "a stored version does not open: no answer passes");
                return Arc::new(ScrubSet::incomplete());
            }
        }
        let set = Arc::new(ScrubSet::of(&values));
        self.scrub_sets.keep(key, stamps, &set);
        set
    }

    /// Forgets what is looked for in what comes back to a tenant, and its opened keys, and wipes them; how many of
    /// both there were. Calls that still run keep theirs until they end.
    pub fn flush_tenant(&self, tenant: &TenantId) -> u64 {
        self.scrub_sets.forget(tenant) + self.keys.forget(tenant)
    }

    fn stamp(&self, record: &CredentialRecord) -> Stamp {
        let minted = self.minted.generation(&guard_key(record));
        Stamp { epoch: record.epoch, versions: undestroyed(record).collect(), minted }
    }

    fn collect(
        &self,
        record: &CredentialRecord,
        values: &mut Vec<Zeroizing<Vec<u8>>>,
    ) -> Result<(), crate::SealBroken> {
        for version in undestroyed(record) {
            expand(&record.kind, &self.open_version(record, version)?, values);
        }
        if let Some(token) = self.registration_token(record)? {
            values.push(Zeroizing::new(token.expose().to_vec()));
        }
        for token in self.minted.all(&guard_key(record)) {
            values.push(Zeroizing::new(token.expose().to_vec()));
            let keys = accept::aws_keys(token.expose()).filter(|_| record.kind.yields() == Yields::AwsKeys);
            if let Some(keys) = keys {
                let parts = [Some(keys.id), Some(keys.secret), keys.token].into_iter().flatten();
                values.extend(parts.map(|part| Zeroizing::new(part.to_vec())));
            }
            let parts = accept::user_and_password(token.expose()).filter(|_| record.kind.yields() == Yields::Basic);
            if let Some((_, password)) = parts.filter(|(_, password)| password.len() >= accept::VALUE_BYTES_MIN) {
                values.push(Zeroizing::new(password.to_vec()));
            }
        }
        Ok(())
    }
}

fn guard_key(record: &CredentialRecord) -> GuardKey {
    GuardKey { tenant: record.tenant.clone(), credential: record.id.clone() }
}

fn undestroyed(record: &CredentialRecord) -> impl Iterator<Item = u32> + '_ {
    record.versions.iter().filter(|version| version.state != VersionState::Destroyed).map(|version| version.version)
}

/// The value, and what is made of it on the way out, each looked for in every form.
fn expand(kind: &CredentialKind, secret: &Secret, values: &mut Vec<Zeroizing<Vec<u8>>>) {
    let mut add = |bytes: &[u8]| values.push(Zeroizing::new(bytes.to_vec()));
    let value = secret.expose();
    add(value);
    match kind {
        CredentialKind::Bearer | CredentialKind::Header | CredentialKind::Query | CredentialKind::HmacKey => {}
        CredentialKind::Basic => {
            if let Some((_, password)) = accept::user_and_password(value) {
                add(password);
            }
            add(&Zeroizing::new(STANDARD.encode(value).into_bytes()));
        }
        // A key goes nowhere, and its connection shows what it proves and not what it is.
        recipe if recipe.stored() == StoredForm::Identity || recipe.yields() == Yields::Identity => {}
        CredentialKind::AwsKeys => {
            if let Some(keys) = accept::aws_keys(value) {
                [Some(keys.id), Some(keys.secret), keys.token].into_iter().flatten().for_each(add);
            }
        }
        recipe => {
            if let Some(keys) = accept::aws_keys(value).filter(|_| recipe.stored() == StoredForm::AwsKeys) {
                [Some(keys.id), Some(keys.secret), keys.token].into_iter().flatten().for_each(&mut add);
            }
            let (first, second) = match recipe.stored() {
                StoredForm::KeyAndToken(_) => accept::key_and_token(value).unzip(),
                StoredForm::Text | StoredForm::Pair => {
                    (None, accept::user_and_password(value).map(|(_, password)| password))
                }
                StoredForm::Key(_) | StoredForm::Identity | StoredForm::AwsKeys | StoredForm::Nothing => (None, None),
            };
            let parts = [first, second].into_iter().flatten().filter(|part| part.len() >= VALUE_BYTES_MIN);
            for part in parts.chain([value]) {
                add(part);
                let mut form = Zeroizing::new(String::with_capacity(3 * part.len()));
                place::form_encode(part, &mut form);
                add(form.as_bytes());
                if let Some(client_id) = recipe.basic_client() {
                    let pair = place::client_pair(client_id, part);
                    add(pair.expose());
                    add(&Zeroizing::new(STANDARD.encode(pair.expose()).into_bytes()));
                }
            }
        }
    }
}
