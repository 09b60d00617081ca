//! Housekeeping, on one thread of its own: syncs what was written and wakes who waits for it, signs and
//! anchors heads, mends what broke, and looks whether somebody else touched the segment.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::LedgerUnavailable;
use crate::line;
use crate::record::encode;
use crate::writer::Inner;
use crate::writer::TroubleKind;
use crate::writer::Writer;

/// A head is signed at the latest this long after the first record that is not: what an intruder could
/// cut off without the anchor knowing.
const UNSIGNED_MAX: Duration = Duration::from_secs(10);

/// A sync that takes longer than this is a disk that does not answer.
const SYNC_SLOW: Duration = Duration::from_secs(5);

impl Inner {
    /// The thread's whole life.
    pub(crate) fn keep_house(&self) {
        let mut last = Instant::now();
        loop {
            let stop = self.wait_for_work(last + self.config.sync_every);
            if stop || last.elapsed() >= self.config.sync_every {
                last = Instant::now();
                self.tidy(stop);
            }
            if let Err(error) = self.sync_and_anchor() {
                tracing::debug!(%error, "the ledger could not sync");
            }
            if stop {
                return;
            }
        }
    }

    fn wait_for_work(&self, until: Instant) -> bool {
        let mut signal = self.signal.lock();
        while !signal.stop && !signal.sync && !self.bell.wait_until(&mut signal, until).timed_out() {}
        signal.sync = false;
        signal.stop
    }

    fn tidy(&self, stop: bool) {
        self.look_at_segment();
        self.mend();
        self.pay();
        let Ok(mut writer) = self.lock_writer() else { return };
        if writer.trouble.is_none() {
            // As below.
            let _ = writer.write_waiting();
        }
        let old = writer.unsigned_since.is_some_and(|since| since.elapsed() >= UNSIGNED_MAX);
        let due = writer.unsigned >= self.config.checkpoint_every_records || old || stop;
        if due && writer.unsigned > 0 && writer.trouble.is_none() {
            // A failure is kept as the writer's trouble.
            let _ = self.sign(&mut writer);
        }
        writer.closed |= stop;
    }

    fn sign(&self, writer: &mut Writer) -> Result<(), LedgerUnavailable> {
        let now = (self.clock)();
        let checkpoint = self.key.sign(writer.head, now);
        writer.write_record(now, "checkpoint", &encode::extend(Vec::new(), &checkpoint))?;
        writer.unsigned = 0;
        writer.unsigned_since = None;
        writer.unanchored = Some(writer.head);
        Ok(())
    }

    pub(crate) fn checkpoint_now(&self) -> Result<(), LedgerUnavailable> {
        let mut writer = self.lock_writer()?;
        if let Some(trouble) = &writer.trouble {
            return Err(LedgerUnavailable::Refusing(Arc::clone(&trouble.why)));
        }
        writer.write_waiting()?;
        if writer.unsigned > 0 && !writer.closed {
            self.sign(&mut writer)?;
        }
        drop(writer);
        self.sync_and_anchor()
    }

    /// One sync for all that was written before it; then the newest signed head goes to the anchor, which
    /// so never knows of a record that the disk does not have.
    fn sync_and_anchor(&self) -> Result<(), LedgerUnavailable> {
        let mut anchor = self.anchor.lock();
        let (file, mark, synced, unanchored) = {
            let writer = self.lock_writer()?;
            if let Some(trouble) = writer.trouble.as_ref().filter(|trouble| trouble.kind != TroubleKind::Write) {
                return Err(LedgerUnavailable::Refusing(Arc::clone(&trouble.why)));
            }
            (Arc::clone(&writer.file), writer.mark(), writer.synced, writer.unanchored)
        };
        if mark.head.seq > synced.head.seq {
            let done = self.sync_file(&file);
            let mut writer = self.lock_writer()?;
            if let Err(error) = done {
                let failed = writer.head.seq;
                let unavailable = writer.fail(TroubleKind::Sync, error);
                self.synced.send_modify(|synced| synced.failed = failed);
                return Err(unavailable);
            }
            // If it rolled meanwhile, that has synced all of it.
            if Arc::ptr_eq(&writer.file, &file) {
                writer.synced = mark;
            }
            drop(writer);
            self.synced.send_modify(|synced| synced.upto = synced.upto.max(mark.head.seq));
        }
        let Some(head) = unanchored else { return Ok(()) };
        let anchored = anchor.append(&self.key.sign(head, (self.clock)()));
        self.complaints.lock().anchor =
            anchored.as_ref().err().map(|error| format!("the anchor cannot be written: {error}"));
        anchored.map_err(LedgerUnavailable::Anchor)?;
        let mut writer = self.lock_writer()?;
        if writer.unanchored == Some(head) {
            writer.unanchored = None;
        }
        Ok(())
    }

    /// Tries to take records again, and says in the ledger that there was a gap.
    fn mend(&self) {
        #[derive(Serialize)]
        struct Resumed<'why> {
            why: &'why str,
            refused: u64,
        }
        let Ok(mut writer) = self.lock_writer() else { return };
        let Some(trouble) = &writer.trouble else { return };
        let (kind, why, refused) = (trouble.kind, Arc::clone(&trouble.why), trouble.refused);
        let mended = match kind {
            TroubleKind::Write => writer.file.set_len(writer.end),
            TroubleKind::Sync => self.write_suspect_again(&mut writer),
            TroubleKind::Foreign => return,
        };
        if let Err(error) = mended {
            tracing::debug!(%error, "the ledger is still not mended");
            return;
        }
        writer.trouble = None;
        let text = encode::extend(Vec::new(), &Resumed { why: &why, refused });
        if writer.write_record((self.clock)(), "resumed", &text).is_ok() {
            tracing::warn!(%why, refused, "the ledger takes records again");
        } else if let Some(trouble) = &mut writer.trouble {
            // The same gap goes on.
            trouble.refused = refused;
        }
    }

    /// After a failed sync the kernel holds the pages for clean, written or not: to sync again would say
    /// nothing. What was not known to be on the disk is read back, checked against the chain, written once
    /// more, and synced.
    fn write_suspect_again(&self, writer: &mut Writer) -> io::Result<()> {
        let from = writer.synced;
        let bytes = usize::try_from(writer.end - from.end).map_err(io::Error::other)?;
        let mut text = vec![0; bytes];
        writer.file.read_exact_at(&mut text, from.end)?;
        let mut head = from.head;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            head = line::open(line.strip_suffix(b"\n").unwrap_or(line), head).map_err(io::Error::other)?.head;
        }
        if head != writer.head {
            return Err(io::Error::other("what is read back is not what was written"));
        }
        writer.file.write_all_at(&text, from.end)?;
        self.sync_file(&writer.file)?;
        writer.synced = writer.mark();
        let upto = writer.head.seq;
        self.synced.send_modify(|synced| synced.upto = upto);
        Ok(())
    }

    /// Rotation by others, and what is worse (threats A10): a renamed segment still takes every record, but
    /// a cut or deleted one does not.
    fn look_at_segment(&self) {
        let Ok(mut writer) = self.lock_writer() else { return };
        let Ok(own) = writer.file.metadata() else { return };
        let found = match writer.trouble.as_ref().map(|trouble| trouble.kind) {
            Some(TroubleKind::Foreign) => None,
            _ if own.nlink() == 0 => Some("it was deleted"),
            // After a write that failed, a torn record may follow.
            None if own.size() != writer.end => Some("its length is not what was written"),
            _ => None,
        };
        if let Some(found) = found {
            writer.fail(TroubleKind::Foreign, io::Error::other(found));
        }
        let same = fs::metadata(&writer.path).is_ok_and(|named| named.ino() == own.ino() && named.dev() == own.dev());
        let name = writer.path.display();
        self.complaints.lock().segment = (!same).then(|| format!("the segment {name} was moved: move it back"));
    }

    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        self.complaints.lock().syncing_since = Some(Instant::now());
        #[cfg(test)]
        let done = self.faults.sync(file);
        #[cfg(not(test))]
        let done = file.sync_data();
        self.complaints.lock().syncing_since = None;
        done
    }

    pub(crate) fn healthy(&self) -> Result<(), String> {
        {
            let writer = self.lock_writer().map_err(|error| error.to_string())?;
            if writer.closed {
                return Err(LedgerUnavailable::Closed.to_string());
            }
            if let Some(trouble) = &writer.trouble {
                return Err(trouble.why.to_string());
            }
        }
        let complaints = self.complaints.lock();
        if complaints.syncing_since.is_some_and(|since| since.elapsed() > SYNC_SLOW) {
            return Err(LedgerUnavailable::Stalled.to_string());
        }
        complaints.anchor.iter().chain(&complaints.segment).next().map_or(Ok(()), |why| Err(why.clone()))
    }
}
