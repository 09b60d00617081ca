//! Signed heads: the key, the statement that is signed, and the anchor, which is the file outside the
//! ledger's folder that remembers them. Does not decide when to sign (sync.rs) nor what a mismatch means
//! (recover.rs, verify.rs).

use std::fmt;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use aws_lc_rs::rand::SecureRandom as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::UnparsedPublicKey;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::ChainHash;
use crate::Head;
use crate::LedgerRefused;

/// A signed statement that a ledger stood at this head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last record that it speaks of; 0 for a ledger without any.
    pub upto: u64,
    /// That record's hash.
    pub head: ChainHash,
    /// The wall clock when it was signed.
    pub at: UnixMillis,
    /// ed25519 over the three above.
    pub signature: Signature,
}

impl Checkpoint {
    /// What it speaks of.
    #[must_use]
    pub fn stands_at(&self) -> Head {
        Head { seq: self.upto, hash: self.head }
    }

    /// Whether the holder of this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let statement = statement(self.stands_at(), self.at);
        UnparsedPublicKey::new(&ED25519, key.0).verify(&statement, &self.signature.0).is_ok()
    }
}

const STATEMENT_CONTEXT: &[u8] = b"keybearer 2026-11 ledger checkpoint\0";

fn statement(head: Head, at: UnixMillis) -> Vec<u8> {
    let mut bytes = STATEMENT_CONTEXT.to_vec();
    bytes.extend_from_slice(&head.seq.to_le_bytes());
    bytes.extend_from_slice(head.hash.as_bytes());
    bytes.extend_from_slice(&at.0.to_le_bytes());
    bytes
}

macro_rules! hex_bytes {
    ($name:ident, $bytes:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl TryFrom<String> for $name {
            type Error = PublicKeyMalformed;

            fn try_from(text: String) -> Result<Self, PublicKeyMalformed> {
                let mut bytes = [0_u8; $bytes];
                hex::decode_to_slice(&text, &mut bytes).map_err(|_| PublicKeyMalformed { bytes: $bytes })?;
                Ok(Self(bytes))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// An ed25519 public key, as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// An ed25519 signature, as 128 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

hex_bytes!(PublicKey, 32);
hex_bytes!(Signature, 64);

/// The text is not a key or signature in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {bytes} bytes in hex")]
pub struct PublicKeyMalformed {
    bytes: usize,
}

impl FromStr for PublicKey {
    type Err = PublicKeyMalformed;

    fn from_str(text: &str) -> Result<Self, PublicKeyMalformed> {
        text.to_owned().try_into()
    }
}

impl PublicKey {
    /// The key that lies beside a ledger's segments. For convenience: an auditor who suspects the folder
    /// brings his own copy.
    ///
    /// # Errors
    /// The file cannot be read or is no key.
    pub fn beside(dir: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(dir.join(PUBLIC_KEY_FILE))?;
        text.trim_end().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Where a chain that is signed with this key begins.
    pub(crate) fn genesis(&self) -> Head {
        Head::genesis(&self.0)
    }
}

const KEY_FILE: &str = "checkpoint.key";
const PUBLIC_KEY_FILE: &str = "checkpoint.pub";

/// The private key. Never leaves this file's struct; not `Debug`, not `Clone`.
pub(crate) struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads the key, or none if there is no file.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, LedgerRefused> {
        let path = dir.join(KEY_FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerRefused::io(&path, error)),
        };
        let mode = file.metadata().map_err(|error| LedgerRefused::io(&path, error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(LedgerRefused::KeyExposed { path });
        }
        let mut text = Zeroizing::new(String::with_capacity(2 * SEED_BYTES + 1));
        file.read_to_string(&mut text).map_err(|error| LedgerRefused::io(&path, error))?;
        let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
        let malformed = || LedgerRefused::KeyMalformed { path: path.clone() };
        hex::decode_to_slice(text.trim_end(), &mut *seed).map_err(|_| malformed())?;
        Ok(Some(Self(Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| malformed())?)))
    }

    /// Makes a key and writes it, 0600, with its public half beside it.
    pub(crate) fn create(dir: &Path) -> Result<Self, LedgerRefused> {
        let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| LedgerRefused::NoRandomness)?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*seed))));
        let key = Self(Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| LedgerRefused::NoRandomness)?);
        let public = format!("{}\n", key.public_key());
        place_file(dir, PUBLIC_KEY_FILE, public.as_bytes())
            .map_err(|error| LedgerRefused::io(&dir.join(PUBLIC_KEY_FILE), error))?;
        place_file(dir, KEY_FILE, text.as_bytes()).map_err(|error| LedgerRefused::io(&dir.join(KEY_FILE), error))?;
        Ok(key)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref().try_into().expect("an ed25519 public key is 32 bytes");
        PublicKey(bytes)
    }

    /// Signs where the chain stands. About 20 µs.
    pub(crate) fn sign(&self, head: Head, at: UnixMillis) -> Checkpoint {
        let signature = self.0.sign(&statement(head, at));
        let bytes = signature.as_ref().try_into().expect("an ed25519 signature is 64 bytes");
        Checkpoint { upto: head.seq, head: head.hash, at, signature: Signature(bytes) }
    }
}

const SEED_BYTES: usize = 32;

/// Puts a whole file in its place, durably, 0600: a reader and a crash see all of it or nothing.
pub(crate) fn place_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let beside = dir.join(format!("{name}{UNPLACED}"));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let placed = file.write_all(bytes).and_then(|()| file.sync_all());
    let placed = placed.and_then(|()| fs::rename(&beside, dir.join(name))).and_then(|()| File::open(dir)?.sync_all());
    match placed {
        Ok(()) => Ok(file),
        Err(error) => {
            // On a full disk the half of a file is in the way of everything else.
            let _ = fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// How a file is called until it is whole.
pub(crate) const UNPLACED: &str = ".unplaced";

/// The anchor: one signed statement a line.
pub(crate) struct Anchor {
    path: PathBuf,
    file: File,
    /// Where the next line goes. What lies beyond it is the rest of a write that failed.
    end: u64,
}

/// The anchor is cut down to its first and its newest lines beyond this: about 1 000 checkpoints. A
/// shorter one protects as well, since each line vouches for everything before it.
const ANCHOR_BYTES_MAX: u64 = 256 << 10;
const ANCHOR_LINES_KEPT: usize = 200;

impl Anchor {
    /// Reads an anchor: every whole line. None if there is no file.
    pub(crate) fn read(path: &Path) -> Result<Option<Vec<Checkpoint>>, LedgerRefused> {
        let text = match File::open(path) {
            Ok(file) => {
                let mut text = String::new();
                let limit = ANCHOR_BYTES_MAX * 4;
                let read =
                    file.take(limit).read_to_string(&mut text).map_err(|error| LedgerRefused::io(path, error))?;
                if read as u64 == limit {
                    return Err(LedgerRefused::AnchorMalformed { path: path.into(), line: 0 });
                }
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerRefused::io(path, error)),
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |(index, line)| {
            serde_json::from_str(line)
                .map_err(|_| LedgerRefused::AnchorMalformed { path: path.into(), line: index as u64 + 1 })
        };
        whole.lines().enumerate().map(parse).collect::<Result<_, _>>().map(Some)
    }

    /// Makes the anchor of a ledger that has no record yet.
    pub(crate) fn create(path: &Path, first: &Checkpoint) -> Result<Self, LedgerRefused> {
        let dir = parent(path);
        fs::create_dir_all(dir).map_err(|error| LedgerRefused::io(dir, error))?;
        Self::write_whole(path, std::slice::from_ref(first)).map_err(|error| LedgerRefused::io(path, error))
    }

    /// Opens an anchor that was read.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerRefused> {
        let open = || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let mut text = Vec::new();
            (&file).read_to_end(&mut text)?;
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index as u64 + 1);
            Ok(Self { path: path.to_owned(), file, end })
        };
        open().map_err(|error| LedgerRefused::io(path, error))
    }

    /// Adds a line, durably.
    pub(crate) fn append(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        if self.end >= ANCHOR_BYTES_MAX {
            self.shorten()?;
        }
        let line = line_of(checkpoint);
        self.file.write_all_at(&line, self.end)?;
        let end = self.end + line.len() as u64;
        self.file.set_len(end)?;
        self.file.sync_all()?;
        self.end = end;
        Ok(())
    }

    /// As if so many lines had been added that the next one makes it short.
    #[cfg(test)]
    pub(crate) fn pretend_full(&mut self) {
        self.end = ANCHOR_BYTES_MAX;
    }

    fn shorten(&mut self) -> io::Result<()> {
        let lines = Self::read(&self.path).map_err(io::Error::other)?.unwrap_or_default();
        let newest = lines.len().saturating_sub(ANCHOR_LINES_KEPT).max(1);
        let kept: Vec<_> = lines.iter().take(1).chain(lines.iter().skip(newest)).cloned().collect();
        *self = Self::write_whole(&self.path, &kept)?;
        Ok(())
    }

    fn write_whole(path: &Path, lines: &[Checkpoint]) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
        let text: Vec<u8> = lines.iter().flat_map(line_of).collect();
        let file = place_file(parent(path), name, &text)?;
        Ok(Self { path: path.to_owned(), file, end: text.len() as u64 })
    }
}

fn line_of(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut line = serde_json::to_vec(checkpoint).expect("a checkpoint has string keys");
    line.push(b'\n');
    line
}

/// `Path::parent` of a bare file name is the empty path, which cannot be opened.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_statement_is_signed_by_its_key_and_by_no_other_and_not_when_changed() {
        let (one, other) = (testing::folder(), testing::folder());
        let key = SigningKey::create(one.path()).unwrap_or_else(|error| panic!("{error}"));
        let checkpoint = key.sign(key.public_key().genesis(), UnixMillis(5));
        assert!(checkpoint.is_signed_by(&key.public_key()));
        let stranger = SigningKey::create(other.path()).unwrap_or_else(|error| panic!("{error}"));
        assert!(!checkpoint.is_signed_by(&stranger.public_key()));
        assert!(!Checkpoint { upto: 1, ..checkpoint.clone() }.is_signed_by(&key.public_key()));
        assert!(!Checkpoint { at: UnixMillis(6), ..checkpoint }.is_signed_by(&key.public_key()));
    }

    #[test]
    fn the_key_is_for_its_owners_eyes_only_and_is_refused_when_it_is_not() {
        let folder = testing::folder();
        let key = SigningKey::create(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
        assert_eq!(PublicKey::beside(folder.path()).expect("made"), key.public_key());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(SigningKey::load(folder.path()), Err(LedgerRefused::KeyExposed { .. })));
    }

    #[test]
    fn an_anchor_stays_bounded_and_keeps_its_first_and_newest_lines() {
        let folder = testing::folder();
        let key = SigningKey::create(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join("anchor");
        let at = |seq| key.sign(Head { seq, ..key.public_key().genesis() }, UnixMillis(seq));
        let mut anchor = Anchor::create(&path, &at(0)).unwrap_or_else(|error| panic!("{error}"));
        // One real line more than fits is enough: the rest are stood in for by its length.
        let line_bytes = line_of(&at(100_000)).len() as u64;
        let lines = ANCHOR_BYTES_MAX / line_bytes + 20;
        for seq in 1..lines {
            let line = line_of(&at(100_000 + seq));
            if anchor.end >= ANCHOR_BYTES_MAX || seq + 1 == lines {
                anchor.append(&at(100_000 + seq)).expect("appends");
            } else {
                anchor.file.write_all_at(&line, anchor.end).expect("writes");
                anchor.end += line.len() as u64;
            }
        }
        let read = Anchor::read(&path).unwrap_or_else(|error| panic!("{error}")).expect("there");
        assert!(read.len() < ANCHOR_LINES_KEPT + 40, "{}", read.len());
        assert_eq!(read.first().map(|line| line.upto), Some(0));
        assert_eq!(read.last().map(|line| line.upto), Some(100_000 + lines - 1));
    }
}
