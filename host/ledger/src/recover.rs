//! Opening: takes the folder for itself, follows the last segment, cuts a torn last record off and
//! refuses anything else that is broken, asks the anchor, and says what an earlier process left open.
//! Every segment begins with what stood open before it, so one segment is all that is read.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::DispatchId;
use keybearer_contract::IdMap;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use parking_lot::Condvar;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use tokio::sync::watch;

use crate::Broken;
use crate::Checkpoint;
use crate::DispatchFacts;
use crate::Head;
use crate::Ledger;
use crate::LedgerConfig;
use crate::LedgerUnavailable;
use crate::PublicKey;
use crate::Record;
use crate::Why;
use crate::checkpoint::Anchor;
use crate::checkpoint::SigningKey;
use crate::checkpoint::UNPLACED;
use crate::entry::raised_epoch;
use crate::line;
use crate::line::LINE_BYTES_MAX;
use crate::read::Line;
use crate::read::Lines;
use crate::read::Segment;
use crate::read::segments;
use crate::record::Body;
use crate::record::encode;
use crate::standing::Begun;
use crate::standing::Effect;
use crate::standing::Standing;
use crate::standing::begin_segment;
use crate::verify::Chain;
use crate::writer::Inner;
use crate::writer::Signal;
use crate::writer::Synced;
use crate::writer::Writer;

/// What was found when the ledger was opened.
#[derive(Debug)]
pub struct Recovery {
    /// The folder was new.
    pub created: bool,
    /// The last record that was found.
    pub found: Head,
    /// Bytes of a torn record that were cut off: the earlier process ended while it wrote.
    pub torn_bytes: u64,
    /// What an earlier process began and did not end. Said in the ledger as well, and so only once.
    pub unknown: Vec<UnknownOutcome>,
    /// The highest epoch of every credential: a store that knows a lower one is older than the ledger, and
    /// what was revoked since would live again (threats C08).
    pub epochs: IdMap<(TenantId, CredentialId), u64>,
    /// How many changes the store had committed when the last act that says so was recorded: a store that has
    /// fewer is older than the ledger.
    pub commit: u64,
}

/// Something without outcome: nobody knows whether the upstream acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownOutcome {
    /// A dispatch was intended.
    Dispatch(Box<DispatchFacts>),
    /// A call was begun.
    Call(Facts),
}

/// The ledger cannot be opened as it lies there. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerRefused {
    /// Another process has it.
    #[error("another process has the ledger in {}: stop it first", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// It was changed by somebody else than a ledger.
    #[error("the ledger is broken at {0}: look at it with `keybearer ledger verify` before anything else")]
    Broken(#[from] Broken),
    /// It ends before what its anchor remembers: it was cut, or an earlier state was put back.
    #[error(
        "the ledger in {} ends at record {ledger}, and its anchor remembers record {anchor}: \
         an earlier state of the folder was put back, or it was cut",
        dir.display()
    )]
    ShorterThanAnchor {
        /// The folder.
        dir: PathBuf,
        /// The last record that the anchor knows of.
        anchor: u64,
        /// The last record there is.
        ledger: u64,
    },
    /// The anchor is of another ledger, or of another course of this one.
    #[error("the anchor {} remembers another record {seq} than the ledger has", path.display())]
    OffTheAnchor {
        /// The anchor.
        path: PathBuf,
        /// The record's number.
        seq: u64,
    },
    /// A ledger with records has no anchor.
    #[error("the anchor {} is missing: without it nobody can tell whether records are, too", path.display())]
    AnchorMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The anchor holds something else than signed heads of this ledger.
    #[error("the anchor {} cannot be understood at line {line}", path.display())]
    AnchorMalformed {
        /// The anchor.
        path: PathBuf,
        /// The line, from 1; 0 for the file as a whole.
        line: u64,
    },
    /// The anchor lies within the folder that it is to vouch for.
    #[error("the anchor {} must lie outside of the ledger's folder", path.display())]
    AnchorInside {
        /// Where it was to be.
        path: PathBuf,
    },
    /// The anchor is there, and the ledger that it is of is not.
    #[error("the ledger in {} is gone, and its anchor {} is here: put the folder back", dir.display(), anchor.display())]
    Gone {
        /// Where it was.
        dir: PathBuf,
        /// What remembers it.
        anchor: PathBuf,
    },
    /// A ledger with records has no key.
    #[error("the ledger in {} has records and no checkpoint.key: put the key back", dir.display())]
    KeyMissing {
        /// The folder.
        dir: PathBuf,
    },
    /// Others than the owner may read or write the key.
    #[error("others may read {}: `chmod 600` it, and think of it as known to them", path.display())]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
    },
    /// The key's file holds something else.
    #[error("{} is not a key", path.display())]
    KeyMalformed {
        /// The key's file.
        path: PathBuf,
    },
    /// The system's source of randomness failed.
    #[error("no key can be made: the system's source of randomness failed")]
    NoRandomness,
    /// It could be opened, but takes no records.
    #[error("the ledger could be read but not written: {0}")]
    Unavailable(#[from] LedgerUnavailable),
    /// A file cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LedgerRefused {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

impl Ledger {
    /// Opens a ledger, or makes one in an empty folder. Blocks: it reads one segment.
    ///
    /// # Errors
    /// [`LedgerRefused`]. A record that was torn by a crash is no reason: it was never acknowledged, is cut
    /// off, and [`Recovery`] says so.
    pub fn open(config: LedgerConfig) -> Result<(Self, Recovery), LedgerRefused> {
        Self::open_with_clock(config, UnixMillis::now)
    }

    pub(crate) fn open_with_clock(
        config: LedgerConfig,
        clock: fn() -> UnixMillis,
    ) -> Result<(Self, Recovery), LedgerRefused> {
        let folder = take_folder(&config)?;
        let segments = segments(&config.dir).map_err(|error| LedgerRefused::io(&config.dir, error))?;
        let key = match SigningKey::load(&config.dir)? {
            Some(key) => key,
            None if segments.is_empty() => {
                // The key is older than the first line of its anchor: this one was another ledger's, which is gone.
                if Anchor::read(&config.anchor)?.is_some_and(|lines| !lines.is_empty()) {
                    return Err(LedgerRefused::Gone { dir: config.dir, anchor: config.anchor });
                }
                SigningKey::create(&config.dir)?
            }
            None => return Err(LedgerRefused::KeyMissing { dir: config.dir }),
        };
        let anchored = anchored(&config, &key.public_key())?;
        let (start, anchor) = match segments.last() {
            None => create(&config, &key, anchored, clock())?,
            Some(last) => (resume(&config, &key, &segments, last, anchored)?, Anchor::open(&config.anchor)?),
        };
        let Start { writer, found, torn_bytes, open, created } = start;
        let (epochs, commit) = (writer.standing.epochs.clone(), writer.standing.commit);
        let synced = watch::Sender::new(Synced { upto: writer.head.seq, failed: 0 });
        let ledger = Self::start(Inner {
            key,
            clock,
            writer: Mutex::new(writer),
            anchor: Mutex::new(anchor),
            owed: Mutex::new(VecDeque::new()),
            signal: Mutex::new(Signal::default()),
            bell: Condvar::new(),
            synced,
            stalled: AtomicBool::new(false),
            complaints: Mutex::default(),
            _folder: folder,
            #[cfg(test)]
            faults: crate::testing::Faults::default(),
            config: config.clone(),
        })
        .map_err(|error| LedgerRefused::io(&config.dir, error))?;
        let unknown = ledger.list_unknown(open)?;
        ledger.checkpoint()?;
        Ok((ledger, Recovery { created, found, torn_bytes, unknown, epochs, commit }))
    }

    /// Says in the ledger what has no outcome, dispatches before the calls that they belong to.
    fn list_unknown(&self, open: Open) -> Result<Vec<UnknownOutcome>, LedgerUnavailable> {
        let mut unknown = Vec::with_capacity(open.dispatches.len() + open.calls.len());
        for (id, dispatch) in open.dispatches {
            self.append("dispatch_unknown", &encode::dispatch(&dispatch), Effect::EndDispatch(&id))?;
            unknown.push(UnknownOutcome::Dispatch(dispatch.into()));
        }
        for (id, facts) in open.calls {
            self.append("call_unknown", &encode::facts(&facts), Effect::EndCall(&id))?;
            unknown.push(UnknownOutcome::Call(facts));
        }
        Ok(unknown)
    }
}

/// Makes the folder, and locks it against every other process until the file is closed (threats A11).
fn take_folder(config: &LedgerConfig) -> Result<File, LedgerRefused> {
    let dir = &config.dir;
    let take = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        File::open(dir)
    };
    let folder = take().map_err(|error| LedgerRefused::io(dir, error))?;
    if config.anchor.starts_with(dir) {
        return Err(LedgerRefused::AnchorInside { path: config.anchor.clone() });
    }
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerRefused::Locked { dir: dir.clone() }),
        Err(error) => return Err(LedgerRefused::io(dir, error.into())),
    }
    // What a crash left of a file before it was whole.
    for entry in fs::read_dir(dir).map_err(|error| LedgerRefused::io(dir, error))?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(UNPLACED) {
            fs::remove_file(entry.path()).map_err(|error| LedgerRefused::io(&entry.path(), error))?;
        }
    }
    Ok(folder)
}

/// The newest line of the anchor, checked; none if there is no anchor.
fn anchored(config: &LedgerConfig, key: &PublicKey) -> Result<Option<Head>, LedgerRefused> {
    let Some(lines) = Anchor::read(&config.anchor)? else { return Ok(None) };
    let Some(newest) = lines.last() else { return Ok(None) };
    if !newest.is_signed_by(key) {
        return Err(LedgerRefused::AnchorMalformed { path: config.anchor.clone(), line: lines.len() as u64 });
    }
    // Lines are only ever added. One that knows of more than the newest was put there by somebody else.
    let highest = lines.iter().max_by_key(|line| line.upto).map_or(newest.stands_at(), Checkpoint::stands_at);
    Ok(Some(highest))
}

/// Where appending begins.
struct Start {
    writer: Writer,
    found: Head,
    torn_bytes: u64,
    open: Open,
    created: bool,
}

fn create(
    config: &LedgerConfig,
    key: &SigningKey,
    anchored: Option<Head>,
    now: UnixMillis,
) -> Result<(Start, Anchor), LedgerRefused> {
    let genesis = key.public_key().genesis();
    let anchor = match anchored {
        // Before the first segment, so that a segment without an anchor is always a reason to ask.
        None => Anchor::create(&config.anchor, &key.sign(genesis, now))?,
        Some(head) if head == genesis => Anchor::open(&config.anchor)?,
        Some(Head { seq: 0, .. }) => return Err(LedgerRefused::OffTheAnchor { path: config.anchor.clone(), seq: 0 }),
        Some(head) => {
            return Err(LedgerRefused::ShorterThanAnchor { dir: config.dir.clone(), anchor: head.seq, ledger: 0 });
        }
    };
    let begun = begin_segment(config, key, now, genesis, &Standing::default())
        .map_err(|error| LedgerRefused::io(&config.dir, error))?;
    let writer = Writer::at(begun, Standing::default());
    Ok((Start { writer, found: genesis, torn_bytes: 0, open: Open::default(), created: true }, anchor))
}

fn resume(
    config: &LedgerConfig,
    key: &SigningKey,
    all: &[Segment],
    last: &Segment,
    anchored: Option<Head>,
) -> Result<Start, LedgerRefused> {
    let anchored = anchored.ok_or_else(|| LedgerRefused::AnchorMissing { path: config.anchor.clone() })?;
    let mut chain = Chain::new(key.public_key(), HashMap::from([(anchored.seq, anchored.hash)]));
    if let [.., before, _] = all {
        chain.head = last_line(before)?;
    }
    let mut found = Found::default();
    chain.follow(last, true, |kind, _, text| found.take(kind, text))?;
    let off = || LedgerRefused::OffTheAnchor { path: config.anchor.clone(), seq: anchored.seq };
    if anchored.seq > chain.head.seq {
        let (anchor, ledger) = (anchored.seq, chain.head.seq);
        return Err(LedgerRefused::ShorterThanAnchor { dir: config.dir.clone(), anchor, ledger });
    }
    if anchored.seq == 0 && anchored != key.public_key().genesis() {
        return Err(off());
    }
    if anchored.seq > 0 && anchored.seq < last.first && !stands_in(all, anchored)? {
        return Err(off());
    }
    let file = reopen(&last.path, chain.whole_bytes, chain.torn_bytes)
        .map_err(|error| LedgerRefused::io(&last.path, error))?;
    let begun = Begun { file, path: last.path.clone(), end: chain.whole_bytes, head: chain.head };
    let mut writer = Writer::at(begun, found.standing());
    writer.unsigned = 1;
    writer.unsigned_since = Some(Instant::now());
    Ok(Start { writer, found: chain.head, torn_bytes: chain.torn_bytes, open: found.open, created: false })
}

/// Cuts off what is torn, and syncs the rest: after a crash of the process it may be in the kernel only.
fn reopen(path: &Path, whole_bytes: u64, torn_bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "a crash tore the ledger's last record: it is cut off");
        file.set_len(whole_bytes)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// The end of a segment that is not the last one: taken at its word, which the next one's first line and
/// the anchor bear out.
fn last_line(segment: &Segment) -> Result<Head, LedgerRefused> {
    let read = || {
        let file = File::open(&segment.path)?;
        let length = file.metadata()?.len();
        let from = length.saturating_sub(LINE_BYTES_MAX as u64 + 1);
        let mut text = vec![0; usize::try_from(length - from).map_err(io::Error::other)?];
        file.read_exact_at(&mut text, from)?;
        Ok(text)
    };
    let text = read().map_err(|error| LedgerRefused::io(&segment.path, error))?;
    let line = text.strip_suffix(b"\n").map(|text| text.rsplit(|byte| *byte == b'\n').next().unwrap_or(text));
    line.and_then(line::claimed_head)
        .ok_or_else(|| LedgerRefused::Broken(Broken { segment: segment.name(), line: 0, why: Why::Torn }))
}

/// Whether an earlier segment has this record.
fn stands_in(all: &[Segment], head: Head) -> Result<bool, LedgerRefused> {
    let Some(segment) = all.iter().rev().find(|segment| segment.first <= head.seq) else { return Ok(false) };
    let refused = |error| LedgerRefused::io(&segment.path, error);
    let mut lines = Lines::of(&segment.path).map_err(refused)?;
    while let Some(Line::Whole(text)) = lines.next().map_err(refused)? {
        if let Some(claimed) = line::claimed_head(text).filter(|claimed| claimed.seq == head.seq) {
            return Ok(claimed == head);
        }
    }
    Ok(false)
}

/// What has begun and not ended.
#[derive(Default)]
struct Open {
    calls: IdMap<CallId, Facts>,
    dispatches: IdMap<DispatchId, DispatchFacts>,
}

/// What the records of one segment come to.
#[derive(Default)]
struct Found {
    open: Open,
    epochs: Standing,
}

impl Found {
    fn take(&mut self, kind: &str, text: &[u8]) -> Result<(), Why> {
        if kind == "checkpoint" {
            return Ok(());
        }
        let record: Record = serde_json::from_slice(text).map_err(|_| Why::Malformed)?;
        match record.body {
            Body::OpenCall { facts } | Body::CallBegun { facts } => {
                self.open.calls.insert(facts.call.clone(), facts);
            }
            Body::CallClosed { facts, .. } | Body::CallAbandoned { facts } | Body::CallUnknown { facts } => {
                self.open.calls.remove(&facts.call);
            }
            Body::OpenDispatch { dispatch } | Body::DispatchIntended { dispatch } => {
                if let (Some(credential), Some(epoch)) = (&dispatch.credential, dispatch.epoch) {
                    self.epochs.raise(&dispatch.facts.tenant, credential, epoch);
                }
                self.open.dispatches.insert(dispatch.dispatch.clone(), dispatch);
            }
            Body::DispatchClosed { dispatch, .. }
            | Body::DispatchAbandoned { dispatch }
            | Body::DispatchUnknown { dispatch } => {
                self.open.dispatches.remove(&dispatch.dispatch);
            }
            Body::Epochs { epochs, commit } => {
                self.epochs.commit = self.epochs.commit.max(commit);
                for seen in epochs {
                    self.epochs.raise(&seen.tenant, &seen.credential, seen.epoch);
                }
            }
            Body::Act { act } => {
                self.epochs.commit = self.epochs.commit.max(act.commit.unwrap_or(0));
                if let (Some(tenant), Some((credential, epoch))) = (&act.tenant, raised_epoch(&act)) {
                    self.epochs.raise(tenant, &credential, epoch);
                }
            }
            Body::Segment { .. }
            | Body::DispatchRefused { .. }
            | Body::RunOpened { .. }
            | Body::RunCheckpointed { .. }
            | Body::RunResumed { .. }
            | Body::RunEnded { .. }
            | Body::Checkpoint { .. }
            | Body::Resumed { .. } => {}
        }
        Ok(())
    }

    fn standing(&mut self) -> Standing {
        let mut standing = std::mem::take(&mut self.epochs);
        for (id, facts) in &self.open.calls {
            standing.calls.insert(id.clone(), encode::facts(facts).into());
        }
        for (id, dispatch) in &self.open.dispatches {
            standing.dispatches.insert(id.clone(), encode::dispatch(dispatch).into());
        }
        standing
    }
}
