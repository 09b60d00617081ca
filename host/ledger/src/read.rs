//! Reading: by streaming the segments, newest first where that is what is asked for. Reads what stands
//! there and believes it; whether it may be believed is verify.rs's to say. Blocks.

use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use keybearer_contract::CallId;
use keybearer_contract::TenantId;

use crate::Body;
use crate::Record;
use crate::line::LINE_BYTES_MAX;

/// Which records.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those that may be shown to this tenant.
    pub tenant: Option<TenantId>,
    /// Those of this call.
    pub call: Option<CallId>,
}

impl Filter {
    fn admits(&self, record: &Record) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| record.body.tenant() == Some(tenant))
            && self.call.as_ref().is_none_or(|call| record.body.facts().is_some_and(|facts| facts.call == *call))
    }

    /// Whether a line may be one of them: parsing costs more than looking for an id.
    fn may_admit(&self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        self.call.as_ref().is_none_or(|call| line.contains(call.as_str()))
            && self.tenant.as_ref().is_none_or(|tenant| line.contains(tenant.as_str()))
    }
}

/// Who is shown records.
pub trait Visitor {
    /// Whether a line is worth parsing: that costs more than looking for an id in it.
    fn wants(&self, line: &str) -> bool;

    /// Takes a record.
    fn take(&mut self, record: Record);
}

/// Reads a ledger's folder, also while it is written. Every method blocks: call it where that is allowed.
#[derive(Debug, Clone)]
pub struct Reader {
    dir: PathBuf,
}

/// A call is looked for in this many segments, 2 GiB at the default size.
const CALL_SEGMENTS_MAX: usize = 64;

/// More records than a call can have: the largest allowed number of requests, thrice.
const CALL_RECORDS_MAX: usize = 10_000;

impl Reader {
    /// A reader of this folder.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The last `count` records that the filter admits, in order.
    ///
    /// # Errors
    /// A segment cannot be read, or holds a line that is no record.
    pub fn tail(&self, count: usize, filter: &Filter) -> io::Result<Vec<Record>> {
        let mut found: VecDeque<Record> = VecDeque::new();
        for segment in segments(&self.dir)?.iter().rev() {
            let mut here: VecDeque<Record> = VecDeque::new();
            each(segment, filter, |record, _| {
                here.push_back(record);
                if here.len() + found.len() > count {
                    here.pop_front();
                }
                Ok(())
            })?;
            here.append(&mut found);
            found = here;
            if found.len() >= count {
                break;
            }
        }
        Ok(found.into())
    }

    /// Shows a visitor every record that it wants, oldest first; what is only said again at the head of a segment is
    /// not shown. Gives how many records there were.
    ///
    /// # Errors
    /// A segment cannot be read, or holds a line that is no record.
    pub fn visit(&self, visitor: &mut dyn Visitor) -> io::Result<u64> {
        let mut count = 0;
        for segment in segments(&self.dir)? {
            let mut lines = Lines::of(&segment.path)?;
            // A torn line is one that is being written, or that the next start cuts off.
            while let Some(Line::Whole(text)) = lines.next()? {
                count += 1;
                if !std::str::from_utf8(text).is_ok_and(|text| visitor.wants(text)) {
                    continue;
                }
                let record: Record = serde_json::from_slice(text).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", segment.path.display()))
                })?;
                if !matches!(record.body, Body::OpenCall { .. } | Body::OpenDispatch { .. }) {
                    visitor.take(record);
                }
            }
        }
        Ok(count)
    }

    /// Copies the lines that the filter admits, as they stand, oldest first. Gives their number. A part of a
    /// ledger does not make a chain; each line's own hash still holds.
    ///
    /// # Errors
    /// A segment cannot be read, holds a line that is no record, or the writer fails.
    pub fn export(&self, filter: &Filter, writer: &mut dyn Write) -> io::Result<u64> {
        let mut count = 0;
        for segment in segments(&self.dir)? {
            each(&segment, filter, |_, line| {
                count += 1;
                writer.write_all(line)?;
                writer.write_all(b"\n")
            })?;
        }
        writer.flush()?;
        Ok(count)
    }

    /// Every record of one call of this tenant, in order; none if it is another's. Looks at the newest 64
    /// segments and stops where the call began.
    ///
    /// # Errors
    /// A segment cannot be read, or holds a line that is no record.
    pub fn of_call(&self, tenant: &TenantId, call: &CallId) -> io::Result<Vec<Record>> {
        let filter = Filter { tenant: Some(tenant.clone()), call: Some(call.clone()) };
        let mut found = Vec::new();
        for segment in segments(&self.dir)?.iter().rev().take(CALL_SEGMENTS_MAX) {
            let mut here = Vec::new();
            each(segment, &filter, |record, _| {
                // What is only said again stands in an earlier segment.
                if !matches!(record.body, Body::OpenCall { .. } | Body::OpenDispatch { .. })
                    && here.len() < CALL_RECORDS_MAX
                {
                    here.push(record);
                }
                Ok(())
            })?;
            here.append(&mut found);
            found = here;
            if matches!(found.first(), Some(Record { body: Body::CallBegun { .. }, .. })) {
                break;
            }
        }
        Ok(found)
    }
}

pub(crate) fn each(
    segment: &Segment,
    filter: &Filter,
    mut take: impl FnMut(Record, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut lines = Lines::of(&segment.path)?;
    while let Some(line) = lines.next()? {
        // A torn line is one that is being written, or that the next start cuts off.
        let Line::Whole(text) = line else { break };
        if filter.may_admit(text) {
            let record: Record = serde_json::from_slice(text).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", segment.path.display()))
            })?;
            if filter.admits(&record) {
                take(record, text)?;
            }
        }
    }
    Ok(())
}

/// A segment's file.
pub(crate) struct Segment {
    /// Its first record's number, by its name.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

impl Segment {
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// The segments of a folder, oldest first. Files of other names are not looked at.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".jsonl").filter(|digits| digits.len() == 20);
        if let Some(first) = number.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment { first, path });
        }
    }
    segments.sort_unstable_by_key(|segment| segment.first);
    Ok(segments)
}

/// The lines of a segment, one at a time in one buffer.
pub(crate) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

/// One line of a segment.
pub(crate) enum Line<'buffer> {
    /// Without its newline.
    Whole(&'buffer [u8]),
    /// The end of the file without a newline: so many bytes.
    Torn(u64),
    /// No line is this long.
    TooLong,
}

impl Lines {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::with_capacity(256 << 10, File::open(path)?), line: Vec::new() })
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
        Ok(match self.line.strip_suffix(b"\n") {
            Some(line) => Some(Line::Whole(line)),
            None if read == 0 => None,
            None if read as u64 == limit => Some(Line::TooLong),
            None => Some(Line::Torn(read as u64)),
        })
    }
}
