//! Appending: one mutex, one buffer, one write for a record. A failed write leaves no torn record behind
//! it; after one, everything is refused until the housekeeping (sync.rs) has mended it. Rolls segments.
//! Does not sync but when a segment ends, and does not know what a record means.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::CallId;
use keybearer_contract::DispatchId;
use keybearer_contract::UnixMillis;
use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use tokio::sync::watch;

use crate::Head;
use crate::PublicKey;
use crate::Reader;
use crate::checkpoint::Anchor;
use crate::checkpoint::SigningKey;
use crate::line;
use crate::standing::Begun;
use crate::standing::Effect;
use crate::standing::Standing;
use crate::standing::begin_segment;

/// Where a ledger lies and how careful it is.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// The folder of its segments and its key; the ledger's alone.
    pub dir: PathBuf,
    /// The file outside of `dir` that remembers signed heads.
    pub anchor: PathBuf,
    /// What a record survives before its effect may happen.
    pub durability: Durability,
    /// A segment of this many bytes is followed by a new one. A start reads one segment.
    pub segment_bytes: u64,
    /// How long a record may be in the kernel's hands only, in [`Durability::Process`].
    pub sync_every: Duration,
    /// A head is signed after this many records, or 10 s after the first unsigned one.
    pub checkpoint_every_records: u64,
}

impl LedgerConfig {
    /// The defaults: process durability, 32 MiB a segment, synced every 100 ms, signed every 1024 records.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, anchor: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            anchor: anchor.into(),
            durability: Durability::Process,
            segment_bytes: 32 << 20,
            sync_every: Duration::from_millis(100),
            checkpoint_every_records: 1024,
        }
    }
}

/// What the intent of a dispatch survives before its first byte leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process: it is with the kernel.
    Process,
    /// The end of the power: it is on the disk. Waiters share a sync.
    Power,
}

/// The ledger cannot take a record: what would have followed from the record must not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerUnavailable {
    /// This write failed. Nothing of it is left in the file.
    #[error("a record cannot be written: {0}")]
    Write(#[source] io::Error),
    /// An earlier write failed and is not mended yet.
    #[error("the ledger takes no records: {0}")]
    Refusing(Arc<str>),
    /// The record may not have reached the disk.
    #[error("a record may not have reached the disk")]
    NotDurable,
    /// Another write has been hanging for more than a second.
    #[error("the ledger's disk does not answer")]
    Stalled,
    /// The record is longer than 64 KiB.
    #[error("the record is longer than {} KiB", line::LINE_BYTES_MAX >> 10)]
    TooLong,
    /// The anchor could not be written.
    #[error("the anchor cannot be written: {0}")]
    Anchor(#[source] io::Error),
    /// It was shut down.
    #[error("the ledger was shut down")]
    Closed,
}

/// The ledger, open for appending. Clones share it; the last one to go shuts it down.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    housekeeping: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Shared {
    fn shut_down(&self) {
        let mut thread = self.housekeeping.lock();
        if let Some(thread) = thread.take() {
            self.inner.signal.lock().stop = true;
            self.inner.bell.notify_one();
            if thread.join().is_err() {
                tracing::error!("the ledger's housekeeping panicked");
            }
        }
    }
}

impl Ledger {
    pub(crate) fn start(inner: Inner) -> io::Result<Self> {
        let inner = Arc::new(inner);
        let own = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || own.keep_house())?;
        Ok(Self { shared: Arc::new(Shared { inner, housekeeping: Mutex::new(Some(thread)) }) })
    }

    /// Whether a record would be taken now, for readiness; says what is wrong otherwise. An anchor that
    /// cannot be written and a segment that was moved are told here, though records are still taken.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn healthy(&self) -> Result<(), String> {
        self.inner().healthy()
    }

    /// Signs the head, syncs, and writes it to the anchor, now. Blocks.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]; it will be tried again by itself.
    pub fn checkpoint(&self) -> Result<(), LedgerUnavailable> {
        self.inner().checkpoint_now()
    }

    /// Signs, syncs, and takes no more records. Blocks; what is still open is found by the next start.
    pub fn shutdown(&self) {
        self.shared.shut_down();
    }

    /// Whose signature the checkpoints bear.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.inner().key.public_key()
    }

    /// The last record.
    ///
    /// # Errors
    /// [`LedgerUnavailable::Stalled`]
    pub fn head(&self) -> Result<Head, LedgerUnavailable> {
        Ok(self.inner().lock_writer()?.head)
    }

    /// Hands over to the kernel what waits for the next record, for those who read the folder next.
    pub fn hand_over(&self) {
        // Who holds the writer hands it over, too; and a disk that does not answer is not waited for.
        if let Some(mut writer) = self.inner().writer.try_lock()
            && writer.trouble.is_none()
        {
            // A failure is kept as the writer's trouble.
            let _ = writer.write_waiting();
        }
    }

    /// Reads the same folder, with all that was recorded until now. Reading blocks and does not disturb appending.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.hand_over();
        Reader::new(&self.inner().config.dir)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.shared.inner
    }

    pub(crate) fn append(&self, kind: &'static str, text: &[u8], effect: Effect<'_>) -> Result<u64, LedgerUnavailable> {
        self.inner().append(kind, text, effect, When::Now)
    }

    /// The same for a record that nothing follows from but other records: it is written with the next one, and by
    /// the housekeeping where none comes.
    pub(crate) fn append_later(
        &self,
        kind: &'static str,
        text: &[u8],
        effect: Effect<'_>,
    ) -> Result<(), LedgerUnavailable> {
        self.inner().append(kind, text, effect, When::WithTheNext).map(|_| ())
    }

    /// Waits until the record is as durable as the configuration asks. Never yields in process durability.
    pub(crate) async fn durable(&self, seq: u64) -> Result<(), LedgerUnavailable> {
        let inner = self.inner();
        if inner.config.durability == Durability::Process {
            return Ok(());
        }
        let mut synced = inner.synced.subscribe();
        inner.signal.lock().sync = true;
        inner.bell.notify_one();
        loop {
            let now = *synced.borrow_and_update();
            if now.upto >= seq {
                return Ok(());
            }
            if now.failed >= seq {
                return Err(LedgerUnavailable::NotDurable);
            }
            synced.changed().await.map_err(|_| LedgerUnavailable::Closed)?;
        }
    }
}

/// When a record is handed to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    WithTheNext,
}

/// A record that is written with the next one.
pub(crate) struct Waiting {
    time: UnixMillis,
    kind: &'static str,
    text: Vec<u8>,
}

/// So many wait at the most: a write of some 100 KiB.
const WAITING_MAX: usize = 128;

/// The end of something whose record could not be written: written when writing works again.
pub(crate) struct Owed {
    kind: &'static str,
    text: Vec<u8>,
    end: End,
}

enum End {
    Call(CallId),
    Dispatch(DispatchId),
}

/// More than can be open at once on one node; beyond it the next start finds them.
const OWED_MAX: usize = 16 << 10;

/// Everything behind a [`Ledger`]. Locks are taken in the order anchor, writer.
pub(crate) struct Inner {
    pub(crate) config: LedgerConfig,
    pub(crate) key: SigningKey,
    pub(crate) clock: fn() -> UnixMillis,
    pub(crate) writer: Mutex<Writer>,
    /// Also makes syncs one at a time.
    pub(crate) anchor: Mutex<Anchor>,
    pub(crate) owed: Mutex<VecDeque<Owed>>,
    pub(crate) signal: Mutex<Signal>,
    pub(crate) bell: Condvar,
    pub(crate) synced: watch::Sender<Synced>,
    pub(crate) stalled: AtomicBool,
    pub(crate) complaints: Mutex<Complaints>,
    /// Holds the lock on the folder until the last of us is gone.
    pub(crate) _folder: File,
    #[cfg(test)]
    pub(crate) faults: crate::testing::Faults,
}

/// What the housekeeping is asked for.
#[derive(Default)]
pub(crate) struct Signal {
    pub(crate) sync: bool,
    pub(crate) stop: bool,
}

/// How far the disk has it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Synced {
    pub(crate) upto: u64,
    pub(crate) failed: u64,
}

/// What is wrong though records are taken.
#[derive(Default)]
pub(crate) struct Complaints {
    pub(crate) anchor: Option<String>,
    pub(crate) segment: Option<String>,
    pub(crate) syncing_since: Option<Instant>,
}

/// The end of the chain, and the file that it is in.
pub(crate) struct Writer {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    /// Where the next record goes. Not the file's own idea of its end: what lies beyond is torn.
    pub(crate) end: u64,
    /// Where the records begin that were not said again from earlier segments.
    pub(crate) opening_bytes: u64,
    pub(crate) head: Head,
    /// How far the disk has this file.
    pub(crate) synced: Mark,
    pub(crate) standing: Standing,
    pub(crate) unsigned: u64,
    pub(crate) unsigned_since: Option<Instant>,
    pub(crate) unanchored: Option<Head>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) closed: bool,
    /// What is written before the next record, in the same write.
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) line: Vec<u8>,
}

/// A place between two records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) head: Head,
    pub(crate) end: u64,
}

/// Why no records are taken.
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    pub(crate) why: Arc<str>,
    pub(crate) refused: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// A write failed: what lies beyond the end is to be cut off.
    Write,
    /// A sync failed: the kernel may have dropped what it did not write. What follows the last good sync
    /// is to be written once more.
    Sync,
    /// Somebody else changed the file. Nothing here mends that.
    Foreign,
}

/// A hung disk is not waited for: by each in turn for this long, and by none after the first (threats A07).
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);

impl Inner {
    fn append(
        &self,
        kind: &'static str,
        text: &[u8],
        effect: Effect<'_>,
        when: When,
    ) -> Result<u64, LedgerUnavailable> {
        let end = match &effect {
            Effect::EndCall(call) => Some(End::Call((*call).clone())),
            Effect::EndDispatch(dispatch) => Some(End::Dispatch((*dispatch).clone())),
            _ => None,
        };
        let appended = self.try_append(kind, text, effect, when);
        if let (Err(_), Some(end)) = (&appended, end) {
            let mut owed = self.owed.lock();
            if owed.len() < OWED_MAX {
                owed.push_back(Owed { kind, text: text.to_vec(), end });
            }
        }
        appended
    }

    fn try_append(
        &self,
        kind: &'static str,
        text: &[u8],
        effect: Effect<'_>,
        when: When,
    ) -> Result<u64, LedgerUnavailable> {
        // Room for what every line has beside its text.
        if text.len() > line::LINE_BYTES_MAX - 1024 {
            return Err(LedgerUnavailable::TooLong);
        }
        let mut writer = self.lock_writer()?;
        writer.check()?;
        if writer.end - writer.opening_bytes >= self.config.segment_bytes {
            self.roll(&mut writer)?;
        }
        let now = (self.clock)();
        if when == When::WithTheNext && writer.waiting.len() < WAITING_MAX {
            writer.waiting.push(Waiting { time: now, kind, text: text.to_vec() });
        } else {
            writer.write_record(now, kind, text)?;
        }
        writer.standing.apply(effect);
        Ok(writer.head.seq)
    }

    /// Writes what is owed, oldest first, until it cannot.
    pub(crate) fn pay(&self) {
        loop {
            let Some(owed) = self.owed.lock().pop_front() else { return };
            let effect = match &owed.end {
                End::Call(call) => Effect::EndCall(call),
                End::Dispatch(dispatch) => Effect::EndDispatch(dispatch),
            };
            if self.try_append(owed.kind, &owed.text, effect, When::Now).is_err() {
                self.owed.lock().push_front(owed);
                return;
            }
        }
    }

    pub(crate) fn lock_writer(&self) -> Result<MutexGuard<'_, Writer>, LedgerUnavailable> {
        let wait = if self.stalled.load(Ordering::Relaxed) { Duration::ZERO } else { LOCK_WAIT_MAX };
        match self.writer.try_lock_for(wait) {
            Some(writer) => {
                if wait.is_zero() {
                    self.stalled.store(false, Ordering::Relaxed);
                }
                Ok(writer)
            }
            None => {
                self.stalled.store(true, Ordering::Relaxed);
                Err(LedgerUnavailable::Stalled)
            }
        }
    }

    /// Ends the segment and begins the next one with what is open. Blocks for two syncs: so that a start
    /// need look at no segment but the last, every other one is whole and on the disk.
    fn roll(&self, writer: &mut Writer) -> Result<(), LedgerUnavailable> {
        writer.write_waiting()?;
        if let Err(error) = self.sync_file(&writer.file) {
            let failed = writer.head.seq;
            self.synced.send_modify(|synced| synced.failed = failed);
            return Err(writer.fail(TroubleKind::Sync, error));
        }
        let begun = begin_segment(&self.config, &self.key, (self.clock)(), writer.head, &writer.standing);
        let begun = begun.map_err(|error| writer.fail(TroubleKind::Write, error))?;
        let upto = begun.head.seq;
        writer.enter(begun);
        self.synced.send_modify(|synced| synced.upto = upto);
        Ok(())
    }
}

impl Writer {
    /// The writer of a segment that has just been begun, or was found to be whole.
    pub(crate) fn at(begun: Begun, standing: Standing) -> Self {
        let mark = Mark { head: begun.head, end: begun.end };
        Self {
            file: Arc::new(begun.file),
            path: begun.path,
            end: begun.end,
            opening_bytes: 0,
            head: begun.head,
            synced: mark,
            standing,
            unsigned: 0,
            unsigned_since: None,
            unanchored: Some(begun.head),
            trouble: None,
            closed: false,
            waiting: Vec::new(),
            line: Vec::with_capacity(4096),
        }
    }

    fn enter(&mut self, begun: Begun) {
        self.synced = Mark { head: begun.head, end: begun.end };
        self.file = Arc::new(begun.file);
        self.path = begun.path;
        self.end = begun.end;
        self.opening_bytes = begun.end;
        self.head = begun.head;
        self.unsigned = 0;
        self.unsigned_since = None;
        self.unanchored = Some(begun.head);
    }

    /// Refuses, and counts that it did, unless records can be taken.
    fn check(&mut self) -> Result<(), LedgerUnavailable> {
        if self.closed {
            return Err(LedgerUnavailable::Closed);
        }
        match &mut self.trouble {
            None => Ok(()),
            Some(trouble) => {
                trouble.refused += 1;
                Err(LedgerUnavailable::Refusing(Arc::clone(&trouble.why)))
            }
        }
    }

    pub(crate) fn write_record(
        &mut self,
        now: UnixMillis,
        kind: &'static str,
        text: &[u8],
    ) -> Result<(), LedgerUnavailable> {
        let head = self.seal_waiting();
        let head = line::seal(&mut self.line, head, now, kind, text);
        self.write_lines(head)
    }

    /// Writes what waits for a record to be written with.
    pub(crate) fn write_waiting(&mut self) -> Result<(), LedgerUnavailable> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let head = self.seal_waiting();
        self.write_lines(head)
    }

    fn seal_waiting(&mut self) -> Head {
        self.line.clear();
        let mut head = self.head;
        for Waiting { time, kind, text } in &self.waiting {
            head = line::seal(&mut self.line, head, *time, kind, text);
        }
        head
    }

    /// All or none: a write that fails leaves the chain where it was, and what waits goes on waiting.
    fn write_lines(&mut self, head: Head) -> Result<(), LedgerUnavailable> {
        if let Err(error) = self.file.write_all_at(&self.line, self.end) {
            // Where this fails as well, the housekeeping tries it again, and a start after that.
            let _ = self.file.set_len(self.end);
            return Err(self.fail(TroubleKind::Write, error));
        }
        self.end += self.line.len() as u64;
        self.unsigned += head.seq - self.head.seq;
        self.head = head;
        self.waiting.clear();
        if self.unsigned_since.is_none() {
            self.unsigned_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Takes no more records until it is mended.
    pub(crate) fn fail(&mut self, kind: TroubleKind, error: io::Error) -> LedgerUnavailable {
        let why: Arc<str> = match kind {
            TroubleKind::Write => format!("writing failed: {error}").into(),
            TroubleKind::Sync => format!("syncing failed: {error}").into(),
            TroubleKind::Foreign => format!("the segment was changed by somebody else: {error}").into(),
        };
        let refused = self.trouble.as_ref().map_or(0, |trouble| trouble.refused) + 1;
        if self.trouble.is_none() {
            tracing::error!(%why, "the ledger takes no records");
        }
        self.trouble = Some(Trouble { kind, why, refused });
        match kind {
            TroubleKind::Write | TroubleKind::Foreign => LedgerUnavailable::Write(error),
            TroubleKind::Sync => LedgerUnavailable::NotDurable,
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { head: self.head, end: self.end }
    }
}
