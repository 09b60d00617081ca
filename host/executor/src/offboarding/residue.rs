//! The search for what a tenant left behind: its sealed bytes, in every file of the data folder. They are sealed
//! under a key that is gone; that they are gone, too, is what this shows.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

/// What was searched and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Residue {
    /// Sealed values and keys that were looked for.
    pub looked_for: u64,
    /// Files that were searched: the store, its log, the ledger, the compiled code.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be read.
    pub unread: u64,
    /// Rows of the store that name the tenant, but for the one that keeps its id from being given again.
    pub rows: u64,
    /// Files in which something was found.
    pub found_in: Vec<String>,
}

impl Residue {
    /// How much is left; 0 is what it should be.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.rows + self.unread + self.found_in.len() as u64
    }
}

/// Of a longer one so many bytes are looked for: they are random, and no others begin so.
const NEEDLE_BYTES: usize = 32;

/// What is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Folders within folders: the data folder has two levels.
const DEPTH_MAX: usize = 8;

/// Searches a folder. Blocks.
pub(crate) fn search(folder: &Path, needles: &[Vec<u8>]) -> Residue {
    let mut patterns: Vec<Vec<u8>> = Vec::new();
    for needle in needles.iter().filter(|needle| !needle.is_empty()) {
        let head = &needle[..needle.len().min(NEEDLE_BYTES)];
        patterns.push(head.to_vec());
        // Within a record that is text, bytes stand as numbers.
        let numbers: Vec<String> = head.iter().map(u8::to_string).collect();
        patterns.push(numbers.join(",").into_bytes());
    }
    let mut residue = Residue { looked_for: needles.len() as u64, ..Residue::default() };
    let Ok(searcher) = AhoCorasick::new(&patterns) else {
        residue.unread = 1;
        return residue;
    };
    let overlap = patterns.iter().map(Vec::len).max().unwrap_or(0);
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            residue.unread += 1;
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => folders.push((path, depth + 1)),
                Ok(kind) if kind.is_file() => look(&path, &searcher, overlap, &mut residue),
                _ => residue.unread += 1,
            }
        }
    }
    residue
}

fn look(path: &PathBuf, searcher: &AhoCorasick, overlap: usize, residue: &mut Residue) {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Removed meanwhile: nothing is in it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(_) => {
            residue.unread += 1;
            return;
        }
    };
    residue.files += 1;
    let mut chunk = vec![0; overlap + CHUNK_BYTES];
    let mut kept = 0;
    loop {
        let read = match file.read(&mut chunk[kept..]) {
            Ok(0) => return,
            Ok(read) => read,
            Err(_) => {
                residue.unread += 1;
                return;
            }
        };
        residue.bytes += read as u64;
        let end = kept + read;
        if searcher.is_match(&chunk[..end]) {
            residue.found_in.push(path.display().to_string());
            return;
        }
        // What is cut by the end of this chunk is whole in the next.
        let from = end.saturating_sub(overlap);
        chunk.copy_within(from..end, 0);
        kept = end - from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_wherever_and_however_it_stands() {
        let folder = tempfile::tempdir().expect("folder");
        let needle: Vec<u8> = (0..48).map(|byte| byte * 5 + 3).collect();
        let look = || search(folder.path(), std::slice::from_ref(&needle));
        std::fs::create_dir(folder.path().join("ledger")).expect("made");
        std::fs::write(folder.path().join("store.db"), vec![7; 3 * CHUNK_BYTES]).expect("written");
        assert_eq!((look().left(), look().files), (0, 1));
        // Across the end of a chunk.
        let mut bytes = vec![7; 2 * CHUNK_BYTES];
        bytes[CHUNK_BYTES - 10..CHUNK_BYTES + 38].copy_from_slice(&needle);
        std::fs::write(folder.path().join("store.db"), &bytes).expect("written");
        assert_eq!(look().found_in.len(), 1);
        // As numbers, in another folder.
        std::fs::write(folder.path().join("store.db"), b"").expect("written");
        let text = serde_json::to_string(&needle).expect("numbers");
        std::fs::write(folder.path().join("ledger/1.log"), text).expect("written");
        let found = look();
        assert!(found.found_in.len() == 1 && found.found_in[0].ends_with("ledger/1.log"), "{found:?}");
        // What cannot be searched is not clean.
        assert_eq!(search(&folder.path().join("gone"), std::slice::from_ref(&needle)).left(), 1);
    }
}
