//! Compiled code on disk. An entry is named for the engine and the component it belongs to, and begins
//! with a MAC over both names and the code. It is read into memory, checked there, and the checked bytes
//! are the ones that are loaded. Whatever does not hold is as good as not there (threats W14): the cache
//! never causes an error, only another compilation.

use std::fs;
use std::fs::OpenOptions;
use std::hash::Hash;
use std::hash::Hasher;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use wasmtime::Engine;
use zeroize::Zeroizing;

use crate::precompiled::Vouched;

/// Separates this use of the key from every other one.
const KEY_CONTEXT: &str = "keybearer 2026-11 mac of compiled code";

/// Separates the names from other uses of blake3.
const ENGINE_CONTEXT: &str = "keybearer 2026-11 engine that code was compiled for";

/// The largest compiled code that is kept or taken: some times the largest component.
pub(crate) const CODE_BYTES_MAX: usize = 256 << 20;

/// All entries together; beyond it the oldest go.
const TOTAL_BYTES_MAX: u64 = 2 << 30;

const MAC_BYTES: usize = blake3::OUT_LEN;

/// A folder of compiled code that only this host's key vouches for.
pub(crate) struct Cache {
    folder: PathBuf,
    key: Zeroizing<[u8; 32]>,
    engine: blake3::Hash,
    written: AtomicU64,
}

impl Cache {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub(crate) fn open(folder: PathBuf, key: &Zeroizing<[u8; 32]>, engine: &Engine) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut hasher = Feed(blake3::Hasher::new_derive_key(ENGINE_CONTEXT));
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            folder,
            key: Zeroizing::new(blake3::derive_key(KEY_CONTEXT, &**key)),
            engine: hasher.0.finalize(),
            written: AtomicU64::new(0),
        })
    }

    /// The code of a component, if there is an entry and its MAC holds.
    pub(crate) fn find(&self, component: &blake3::Hash) -> Option<Vouched> {
        let file = fs::File::open(self.path(component)).ok()?;
        let bytes_max = (CODE_BYTES_MAX + MAC_BYTES) as u64;
        let mut entry = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut entry).ok()?;
        if entry.len() as u64 > bytes_max {
            return None;
        }
        let (mac, code) = entry.split_at_checked(MAC_BYTES)?;
        // `blake3::Hash` compares in constant time.
        if self.mac(component, code) != blake3::Hash::from_bytes(mac.try_into().ok()?) {
            tracing::warn!(component = %component.to_hex(), "a cache entry does not hold its MAC: compiling anew");
            return None;
        }
        let code = entry.split_off(MAC_BYTES);
        Some(Vouched::on_my_word(code))
    }

    /// Keeps code. Failing to is no error: the next start compiles again.
    pub(crate) fn keep(&self, component: &blake3::Hash, code: &Vouched) {
        if let Err(error) = self.write(component, code.as_bytes()) {
            tracing::warn!(%error, "compiled code could not be kept");
        }
        self.prune();
    }

    /// Written beside its place and moved there: a reader sees all of it or nothing. It is not synced: what a
    /// power cut leaves of it does not hold its MAC.
    fn write(&self, component: &blake3::Hash, code: &[u8]) -> std::io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!("{}.{}.{number}.new", component.to_hex(), std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(self.mac(component, code).as_bytes())?;
            file.write_all(code)?;
            fs::rename(&beside, self.path(component))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    fn path(&self, component: &blake3::Hash) -> PathBuf {
        self.folder.join(format!("{}-{}.code", self.engine.to_hex(), component.to_hex()))
    }

    fn mac(&self, component: &blake3::Hash, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(self.engine.as_bytes());
        hasher.update(component.as_bytes());
        hasher.update(&(code.len() as u64).to_le_bytes());
        hasher.update(code);
        hasher.finalize()
    }

    /// Removes the oldest entries beyond the total, whichever engine they were for.
    fn prune(&self) {
        let Ok(entries) = ages(&self.folder) else { return };
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in entries {
            if total <= TOTAL_BYTES_MAX {
                return;
            }
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// The files of a folder, oldest first.
fn ages(folder: &Path) -> std::io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_file() {
            entries.push((about.modified()?, about.len(), entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

/// Feeds what `Hash` writes to blake3, whose output does not depend on the process.
struct Feed(blake3::Hasher);

impl Hasher for Feed {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// The name under which a component's code is kept.
pub(crate) fn name(component: &[u8]) -> blake3::Hash {
    blake3::hash(component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    fn cache(folder: &Path, key: u8) -> Cache {
        let engine = engine::compiling().expect("an engine");
        Cache::open(folder.join("code"), &Zeroizing::new([key; 32]), &engine).expect("a folder")
    }

    fn only_entry(cache: &Cache) -> PathBuf {
        let entries = ages(&cache.folder).expect("the folder lists");
        assert_eq!(entries.len(), 1, "one entry and nothing beside it");
        entries[0].2.clone()
    }

    #[test]
    fn w14_an_entry_counts_only_whole_under_its_own_key_and_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = cache(folder.path(), 1);
        let (component, other) = (name(b"component"), name(b"other"));
        assert!(cache.find(&component).is_none());
        cache.keep(&component, &Vouched::on_my_word(b"code".to_vec()));
        assert_eq!(cache.find(&component).expect("an entry").as_bytes(), b"code");
        let entry = only_entry(&cache);
        let whole = fs::read(&entry).expect("reads");

        for length in 0..whole.len() {
            fs::write(&entry, &whole[..length]).expect("writes");
            assert!(cache.find(&component).is_none(), "truncated at {length}");
        }
        for at in 0..whole.len() {
            let mut tampered = whole.clone();
            tampered[at] ^= 1;
            fs::write(&entry, &tampered).expect("writes");
            assert!(cache.find(&component).is_none(), "one bit at {at}");
        }
        fs::write(cache.path(&other), &whole).expect("writes");
        assert!(cache.find(&other).is_none(), "under another component's name");
        fs::write(&entry, &whole).expect("writes");
        assert!(cache.find(&component).is_some());
        assert!(super::tests::cache(folder.path(), 2).find(&component).is_none(), "under another key");
    }

    #[test]
    fn an_entry_can_be_read_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let cache = cache(folder.path(), 1);
        cache.keep(&name(b"component"), &Vouched::on_my_word(b"code".to_vec()));
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&only_entry(&cache)), 0o600);
        assert_eq!(mode(&cache.folder), 0o700);
    }

    #[test]
    fn the_engine_that_compiles_is_the_same_as_the_one_that_runs() {
        let limits = keybearer_contract::Limits::default();
        let id = |engine: &Engine| {
            let mut hasher = Feed(blake3::Hasher::new());
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.0.finalize()
        };
        let compiling = engine::compiling().expect("an engine");
        let running = engine::running(&limits, 1).expect("an engine");
        assert_eq!(id(&compiling), id(&running));
    }
}
