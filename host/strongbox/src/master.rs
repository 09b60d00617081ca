//! The master key: one file, readable by its owner alone, from which every other key hangs. It wraps
//! the tenants' data keys, and the keys for MACs are derived from it.
//!
//! The file holds a magic, the fingerprint key, and one master key or, while a rotation is under way,
//! two, the newest first; each is 32 random bytes. The fingerprint key is never rotated: it opens
//! nothing, and if it changed, the same value could not be found any more. A rotation survives a crash at every point: [`MasterKey::begin_rotation`] writes new
//! and old key; each data key is then wrapped anew and stored, in as many transactions as it takes,
//! since both keys open; [`MasterKey::finish_rotation`] drops the old key only if no stored data key
//! needs it any more. Begun twice or finished twice, each does what is still to be done.
//!
//! Not for environment variables and command lines: a key that was there is in somebody's history.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use keybearer_contract::TenantId;
use keybearer_gate::Sealed;
use zeroize::Zeroizing;

use crate::seal::SealBroken;
use crate::seal::SealingKey;
use crate::seal::data_key_aad;
use crate::seal::derive_key;
use crate::seal::fingerprint;
use crate::seal::key_id_of;
use crate::seal::write_key;
use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Names the format, and tells a key file from whatever else lies there.
const MAGIC: &[u8; 8] = b"KBMASTR1";

/// AES-256.
const KEY_BYTES: usize = 32;

/// The fingerprint key.
const FIXED_KEYS: usize = 1;

/// The current key, and the one before it while a rotation is under way.
const KEYS_MAX: usize = 2;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterKeyRefused {
    /// The file cannot be read or written.
    #[error("the master key file {path} cannot be used: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the master key file {path} has mode {mode:04o}: take every right from group and others (`chmod 600`)", path = path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a regular file of the right size and beginning.
    #[error("{path} is not a master key file: it must be a regular file of 72 bytes, or 104 during a rotation", path = path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// A stored data key still needs the old key.
    #[error("{remaining} stored data keys are still wrapped by the old master key: wrap and store them first")]
    StillNeeded {
        /// How many.
        remaining: usize,
    },
}

/// The keys of a master key file, newest first.
pub struct MasterKey {
    path: PathBuf,
    fingerprint: Secret,
    /// Never empty.
    keys: Vec<RootKey>,
}

assert_lacks!(MasterKey: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

struct RootKey {
    bytes: Secret,
    sealing: SealingKey,
}

impl MasterKey {
    /// Opens the file, or makes it with a new key and mode 0600.
    ///
    /// # Errors
    /// [`MasterKeyRefused`] if it cannot be read or made, if group or others have any right to it, or if
    /// it is not a key file. A file that is there is never overwritten.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, MasterKeyRefused> {
        let path = path.as_ref();
        match Self::open(path) {
            Err(MasterKeyRefused::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let fresh = random_key();
        match write_file(path, &[&random_key(), &fresh], Publish::New) {
            // Another process was faster: its key is the key.
            Err(MasterKeyRefused::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            written => written?,
        }
        Self::open(path)
    }

    /// Opens a file that must be there.
    ///
    /// # Errors
    /// As [`Self::open_or_create`], and if it is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MasterKeyRefused> {
        let path = path.as_ref();
        let failed = |source| MasterKeyRefused::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(MasterKeyRefused::NotAKey { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(MasterKeyRefused::TooOpen { path: path.to_owned(), mode });
        }
        // One byte more than the longest, so that a longer file is seen to be one; the size is not asked
        // beforehand, since it could change.
        let mut bytes = Zeroizing::new([0_u8; MAGIC.len() + (FIXED_KEYS + KEYS_MAX) * KEY_BYTES + 1]);
        let mut length = 0;
        loop {
            match file.read(&mut bytes[length..]).map_err(failed)? {
                0 => break,
                count => length += count,
            }
        }
        let refused = || MasterKeyRefused::NotAKey { path: path.to_owned() };
        let keys = bytes[..length].strip_prefix(MAGIC).ok_or_else(refused)?;
        let count = keys.len() / KEY_BYTES;
        if keys.len() % KEY_BYTES != 0 || !(FIXED_KEYS + 1..=FIXED_KEYS + KEYS_MAX).contains(&count) {
            return Err(refused());
        }
        let (fingerprint, keys) = keys.split_at(KEY_BYTES);
        Ok(Self {
            path: path.to_owned(),
            fingerprint: Secret::take(fingerprint.to_vec()),
            keys: keys.chunks_exact(KEY_BYTES).map(RootKey::new).collect(),
        })
    }

    /// Begins a rotation, or takes up one that was cut off: the file then holds a new key and the old
    /// one. A strongbox in use goes by [`crate::Strongbox::begin_master_rotation`].
    ///
    /// # Errors
    /// [`MasterKeyRefused`]; the file is then as it was.
    pub fn begin_rotation(path: impl AsRef<Path>) -> Result<Self, MasterKeyRefused> {
        let path = path.as_ref();
        let held = Self::open(path)?;
        if held.is_rotating() {
            return Ok(held);
        }
        let fresh = random_key();
        write_file(path, &[&held.fingerprint, &fresh, &held.newest().bytes], Publish::Replace)?;
        Self::open(path)
    }

    /// Ends a rotation: drops the old key from the file. `stored` is every wrapped data key that the
    /// store holds, read after the last of them was written.
    ///
    /// # Errors
    /// [`MasterKeyRefused::StillNeeded`] if one of them does not open by the new key; nothing is changed.
    pub fn finish_rotation<'sealed>(
        path: impl AsRef<Path>,
        stored: impl IntoIterator<Item = &'sealed Sealed>,
    ) -> Result<Self, MasterKeyRefused> {
        let path = path.as_ref();
        let held = Self::open(path)?;
        let newest = held.newest().sealing.id();
        let remaining = stored.into_iter().filter(|sealed| key_id_of(sealed) != Some(newest)).count();
        if remaining > 0 {
            return Err(MasterKeyRefused::StillNeeded { remaining });
        }
        if !held.is_rotating() {
            return Ok(held);
        }
        write_file(path, &[&held.fingerprint, &held.newest().bytes], Publish::Replace)?;
        Self::open(path)
    }

    /// Whether the file holds an old key as well.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.keys.len() > 1
    }

    /// Whether a tenant's data key was wrapped by this key, or by the one that it is being rotated from.
    #[must_use]
    pub fn opens(&self, tenant: &TenantId, data_key: &Sealed) -> bool {
        self.unwrap(&data_key_aad(tenant), data_key).is_ok()
    }

    /// The newest key's id, in hex: for records and `doctor`. It is derived one way and opens nothing.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(self.newest().sealing.id())
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same value has the same fingerprint wherever it is stored.
    pub(crate) fn fingerprint(&self, value: &Secret) -> [u8; 32] {
        fingerprint(&self.fingerprint, value)
    }

    /// A key of 256 bits for one use; the context names the use, and is the same for ever.
    pub(crate) fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        derive_key(&self.newest().bytes, context)
    }

    /// Seals by the newest key.
    pub(crate) fn wrap(&self, aad: &[u8], plain: &[u8]) -> Sealed {
        self.newest().sealing.seal(aad, plain)
    }

    /// Opens what the newest or the old key sealed.
    pub(crate) fn unwrap(&self, aad: &[u8], sealed: &Sealed) -> Result<Secret, SealBroken> {
        let id = key_id_of(sealed).ok_or(SealBroken)?;
        let key = self.keys.iter().find(|key| key.sealing.id() == id).ok_or(SealBroken)?;
        key.sealing.open(aad, sealed)
    }

    fn newest(&self) -> &RootKey {
        self.keys.first().expect("a key file without a key is refused")
    }
}

impl RootKey {
    fn new(bytes: &[u8]) -> Self {
        let bytes = Secret::take(bytes.to_vec());
        let sealing = SealingKey::new(&bytes);
        Self { bytes, sealing }
    }
}

pub(crate) fn random_key() -> Secret {
    let mut bytes = vec![0_u8; KEY_BYTES];
    getrandom::fill(&mut bytes).expect("the kernel's random source does not fail once seeded");
    Secret::take(bytes)
}

enum Publish {
    /// The name must be free.
    New,
    /// The name's file gives way.
    Replace,
}

/// Writes a whole file under another name, syncs it, and gives it its name in one step, so that no
/// reader and no crash ever meets half a key.
fn write_file(path: &Path, keys: &[&Secret], publish: Publish) -> Result<(), MasterKeyRefused> {
    let failed = |source| MasterKeyRefused::Io { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut suffix = [0_u8; 8];
    getrandom::fill(&mut suffix).expect("the kernel's random source does not fail once seeded");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", hex::encode(suffix)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(MAGIC)?;
        keys.iter().try_for_each(|key| write_key(key, &mut file))?;
        file.sync_all()?;
        match publish {
            Publish::New => fs::hard_link(&temporary, path),
            Publish::Replace => fs::rename(&temporary, path),
        }
    })();
    if !matches!((&written, &publish), (Ok(()), Publish::Replace)) {
        // Best effort: what is left behind has mode 0600, and a new attempt has another name.
        drop(fs::remove_file(&temporary));
    }
    written.map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone_and_opened_again_as_the_same_key() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("master.key");
        let made = MasterKey::open_or_create(&path).expect("made");
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(fs::metadata(&path).expect("there").len(), 72);
        let opened = MasterKey::open_or_create(&path).expect("opened");
        assert_eq!(made.id(), opened.id());
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "nothing else is left behind");
        let other = MasterKey::open_or_create(folder.path().join("other.key")).expect("made");
        assert_ne!(made.id(), other.id());
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("master.key");
        drop(MasterKey::open_or_create(&path).expect("made"));
        for mode in [0o640, 0o604, 0o620, 0o601, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            assert!(
                matches!(MasterKey::open_or_create(&path), Err(MasterKeyRefused::TooOpen { mode: seen, .. }) if seen == mode)
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("changed");
        assert!(MasterKey::open_or_create(&path).is_ok());
    }

    #[test]
    fn a_file_of_another_size_or_beginning_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("master.key");
        let with_magic = |count: usize| [MAGIC.as_slice(), &vec![7; count]].concat();
        for bytes in [0, 31, 32, 63, 65, 97, 128].map(with_magic).into_iter().chain([vec![], vec![1; 72]]) {
            fs::write(&path, &bytes).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
            assert!(
                matches!(MasterKey::open_or_create(&path), Err(MasterKeyRefused::NotAKey { .. })),
                "{}",
                bytes.len()
            );
            assert_eq!(fs::read(&path).expect("read"), bytes);
        }
        assert!(MasterKey::open_or_create(folder.path()).is_err());
    }

    #[test]
    fn a_rotation_can_be_taken_up_at_every_point_and_ends_only_when_no_data_key_needs_the_old_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("master.key");
        let old = MasterKey::open_or_create(&path).expect("made");
        let data_key = old.wrap(b"aad", b"a data key");

        let both = MasterKey::begin_rotation(&path).expect("begun");
        assert!(both.is_rotating() && both.id() != old.id());
        assert_eq!(MasterKey::begin_rotation(&path).expect("taken up").id(), both.id());
        assert!(both.unwrap(b"aad", &data_key).is_ok());
        let refused = MasterKey::finish_rotation(&path, [&data_key]);
        assert!(matches!(refused, Err(MasterKeyRefused::StillNeeded { remaining: 1 })));

        let anew = both.wrap(b"aad", b"a data key");
        assert!(old.unwrap(b"aad", &anew).is_err());
        let new = MasterKey::finish_rotation(&path, [&anew]).expect("finished");
        assert_eq!(MasterKey::finish_rotation(&path, [&anew]).expect("finished").id(), new.id());
        assert!(!new.is_rotating() && new.id() == both.id());
        assert!(new.unwrap(b"aad", &anew).is_ok());
        assert!(new.unwrap(b"aad", &data_key).is_err());
        let value = || Secret::take(b"a value".to_vec());
        assert_eq!(new.fingerprint(&value()), old.fingerprint(&value()), "the same value is still found");
        assert_ne!(*new.derive("context"), *old.derive("context"));
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    }
}
