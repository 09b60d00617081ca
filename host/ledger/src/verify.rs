//! Verifying: every line of every segment against the chain, every checkpoint against the key, and the
//! whole against the anchor. For auditors: needs the files and the public key, and neither a running
//! server nor the private key.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::ChainHash;
use crate::Checkpoint;
use crate::Head;
use crate::PublicKey;
use crate::Record;
use crate::checkpoint::Anchor;
use crate::line;
use crate::read::Line;
use crate::read::Lines;
use crate::read::Segment;
use crate::read::segments;
use crate::record::Body;

/// What a ledger that holds was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its records.
    pub records: u64,
    /// Its segments.
    pub segments: u64,
    /// Its last record.
    pub head: Head,
    /// Its checkpoints, each signed.
    pub checkpoints: u64,
    /// The last record that the anchor vouches for. What follows could be cut off without a trace.
    pub anchored: u64,
    /// Bytes of a record at the very end that is not whole: a crash, or a record that is being written.
    pub torn_bytes: u64,
}

/// Where a ledger is broken, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{segment}, line {line}: {why}")]
pub struct Broken {
    /// The file.
    pub segment: String,
    /// The line in it, from 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// It has not the form of a record.
    #[error("this is not a record")]
    Malformed,
    /// A record was left out, repeated or moved.
    #[error("record {expected} should stand here, and {found} does")]
    OutOfOrder {
        /// The number that follows from the line before.
        expected: u64,
        /// The number in the line.
        found: u64,
    },
    /// The line's hash is not that of its text.
    #[error("the record was edited: its hash is not that of its text")]
    Edited,
    /// The line follows another one than the line before.
    #[error("the record does not follow the one before it")]
    OffTheChain,
    /// A checkpoint does not speak of the record before it.
    #[error("the checkpoint speaks of another place than its own")]
    Misplaced,
    /// A checkpoint is not signed with the key.
    #[error("the signature is not of this key")]
    Signature,
    /// The file begins with another record than its name says, or not as a segment does.
    #[error("the file does not begin as its name says")]
    Misnamed,
    /// The segment names another key.
    #[error("the segment was written with another key")]
    ForeignKey,
    /// A line is longer than any record.
    #[error("no record is this long")]
    TooLong,
    /// A segment that is not the last one ends within a record.
    #[error("the segment ends within a record")]
    Torn,
    /// The anchor remembers more.
    #[error("the ledger ends at record {ledger}, and its anchor remembers record {anchor}")]
    ShorterThanAnchor {
        /// The last record that the anchor knows of.
        anchor: u64,
        /// The last record there is.
        ledger: u64,
    },
    /// The anchor remembers another record at this place.
    #[error("the anchor remembers another record {seq}")]
    OffTheAnchor {
        /// The record's number.
        seq: u64,
    },
    /// There is no anchor, or it cannot be understood.
    #[error("the anchor cannot be used: {0}")]
    Anchor(String),
    /// There is no segment.
    #[error("there is no segment")]
    Empty,
    /// A file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// Verifies a ledger as it lies on the disk. It may be written to meanwhile.
///
/// # Errors
/// [`Broken`]: the first place at which it does not hold.
pub fn verify(dir: &Path, anchor: &Path, key: &PublicKey) -> Result<Verified, Broken> {
    // The anchor first: it never knows of more than the segments that are read after it.
    let anchors = read_anchor(anchor, key)?;
    let whole = |why| Broken { segment: dir.display().to_string(), line: 0, why };
    let segments = segments(dir).map_err(|error| whole(Why::Unreadable(error.to_string())))?;
    if segments.is_empty() {
        return Err(whole(Why::Empty));
    }
    let mut chain = Chain::new(*key, anchors.clone());
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        chain.follow(segment, last, |_, _, _| Ok(()))?;
    }
    let anchored = anchors.keys().max().copied().unwrap_or(0);
    if anchored > chain.head.seq {
        let why = Why::ShorterThanAnchor { anchor: anchored, ledger: chain.head.seq };
        return Err(Broken { segment: segments.last().map(Segment::name).unwrap_or_default(), line: 0, why });
    }
    Ok(Verified {
        records: chain.head.seq,
        segments: segments.len() as u64,
        head: chain.head,
        checkpoints: chain.checkpoints,
        anchored,
        torn_bytes: chain.torn_bytes,
    })
}

fn read_anchor(path: &Path, key: &PublicKey) -> Result<HashMap<u64, ChainHash>, Broken> {
    let broken = |line, why| Broken { segment: path.display().to_string(), line, why };
    let lines = Anchor::read(path).map_err(|error| broken(0, Why::Anchor(error.to_string())))?;
    let lines = lines.filter(|lines| !lines.is_empty());
    let lines = lines.ok_or_else(|| broken(0, Why::Anchor("there is none".to_owned())))?;
    let mut anchors = HashMap::new();
    for (index, checkpoint) in lines.iter().enumerate() {
        let line = index as u64 + 1;
        if !checkpoint.is_signed_by(key) {
            return Err(broken(line, Why::Signature));
        }
        if anchors.insert(checkpoint.upto, checkpoint.head).is_some_and(|earlier| earlier != checkpoint.head) {
            return Err(broken(line, Why::OffTheAnchor { seq: checkpoint.upto }));
        }
    }
    if anchors.get(&0).is_some_and(|head| *head != key.genesis().hash) {
        return Err(broken(1, Why::OffTheAnchor { seq: 0 }));
    }
    Ok(anchors)
}

/// A chain that is being followed.
pub(crate) struct Chain {
    pub(crate) head: Head,
    pub(crate) checkpoints: u64,
    /// Bytes of whole lines in the segment that was followed last.
    pub(crate) whole_bytes: u64,
    pub(crate) torn_bytes: u64,
    key: PublicKey,
    anchors: HashMap<u64, ChainHash>,
}

impl Chain {
    pub(crate) fn new(key: PublicKey, anchors: HashMap<u64, ChainHash>) -> Self {
        Self { head: key.genesis(), checkpoints: 0, whole_bytes: 0, torn_bytes: 0, key, anchors }
    }

    /// Follows one segment, and hands every line on. A torn record is borne with in the last one only.
    pub(crate) fn follow(
        &mut self,
        segment: &Segment,
        last: bool,
        mut seen: impl FnMut(&str, u64, &[u8]) -> Result<(), Why>,
    ) -> Result<(), Broken> {
        let mut number = 0;
        self.follow_lines(segment, last, &mut number, &mut seen).map_err(|why| Broken {
            segment: segment.name(),
            line: number,
            why,
        })
    }

    fn follow_lines(
        &mut self,
        segment: &Segment,
        last: bool,
        number: &mut u64,
        seen: &mut impl FnMut(&str, u64, &[u8]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let unreadable = |error: io::Error| Why::Unreadable(error.to_string());
        if segment.first != self.head.seq + 1 {
            return Err(Why::OutOfOrder { expected: self.head.seq + 1, found: segment.first });
        }
        self.whole_bytes = 0;
        let mut lines = Lines::of(&segment.path).map_err(unreadable)?;
        while let Some(line) = lines.next().map_err(unreadable)? {
            *number += 1;
            match line {
                Line::TooLong => return Err(Why::TooLong),
                Line::Torn(_) if !last || *number == 1 => return Err(Why::Torn),
                Line::Torn(bytes) => self.torn_bytes = bytes,
                Line::Whole(text) => {
                    let opened = line::open(text, self.head)?;
                    self.check_kind(opened.kind, *number, text)?;
                    self.head = opened.head;
                    self.whole_bytes += text.len() as u64 + 1;
                    if self.anchors.get(&self.head.seq).is_some_and(|hash| *hash != self.head.hash) {
                        return Err(Why::OffTheAnchor { seq: self.head.seq });
                    }
                    seen(opened.kind, *number, text)?;
                }
            }
        }
        if *number == 0 { Err(Why::Misnamed) } else { Ok(()) }
    }

    fn check_kind(&mut self, kind: &str, number: u64, text: &[u8]) -> Result<(), Why> {
        if (kind == "segment") != (number == 1) {
            return Err(Why::Misnamed);
        }
        if kind != "segment" && kind != "checkpoint" {
            return Ok(());
        }
        let record: Record = serde_json::from_slice(text).map_err(|_| Why::Malformed)?;
        match record.body {
            Body::Segment { public_key, .. } if public_key != self.key => Err(Why::ForeignKey),
            Body::Checkpoint { checkpoint } => self.check_checkpoint(&checkpoint),
            _ => Ok(()),
        }
    }

    fn check_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Why> {
        if checkpoint.stands_at() != self.head {
            return Err(Why::Misplaced);
        }
        if !checkpoint.is_signed_by(&self.key) {
            return Err(Why::Signature);
        }
        self.checkpoints += 1;
        Ok(())
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
