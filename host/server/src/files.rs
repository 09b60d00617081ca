//! Files that hold secrets, and files that others wait for.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::anyhow;
use anyhow::ensure;
use zeroize::Zeroizing;

/// A secret file is a token or a key: short.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads a file that only its owner may read, without the line end.
///
/// # Errors
/// If it cannot be read, or others can read it.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mode = file.metadata()?.mode();
    ensure!(mode & 0o077 == 0, "{} can be read by others: chmod 600 {}", path.display(), path.display());
    let mut text = Zeroizing::new(String::with_capacity(512));
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("{} is no text", path.display()))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

/// Reads the operator's token.
///
/// # Errors
/// If there is none, with what makes another; if others can read it.
pub(crate) fn read_operator_token(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let another = "`keybearer operator new-token` makes another";
    let token = read_secret(path).map_err(|error| match error.downcast_ref::<std::io::Error>() {
        Some(why) if why.kind() == ErrorKind::NotFound => {
            anyhow!("the operator's token {} is not there: {another}", path.display())
        }
        _ => error.context("the operator's token cannot be used"),
    })?;
    ensure!(
        token.starts_with("kbop_"),
        "{} holds no operator's token, which begins with kbop_: {another}",
        path.display()
    );
    Ok(token)
}

/// A new file that only its owner may read. One that is dropped before [`NewFile::keep`] is taken away again.
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl NewFile {
    /// Makes it, empty.
    ///
    /// # Errors
    /// If it exists or cannot be made.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Self> {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => anyhow!("{} exists: it is not overwritten", path.display()),
            _ => anyhow!("{} cannot be made: {error}", path.display()),
        })?;
        Ok(Self { path: path.to_owned(), file, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where to write more than one line.
    pub(crate) fn writer(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes one line and keeps the file.
    ///
    /// # Errors
    /// If it cannot be written; it is gone then.
    pub(crate) fn write(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.write_all(b"\n"));
        written.with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.keep()
    }

    /// Keeps what was written.
    ///
    /// # Errors
    /// If it does not reach the disk; it is gone then.
    pub(crate) fn keep(mut self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // Somebody was faster, or nothing can be done about it.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// If it exists or cannot be written.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    NewFile::make(path)?.write(bytes)
}

/// Replaces a file by one that only its owner may read, in one step.
///
/// # Errors
/// If the folder cannot be written.
pub(crate) fn replace_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = beside(path)?;
    write_secret(&beside, bytes)?;
    std::fs::rename(&beside, path).with_context(|| format!("{} cannot be written", path.display()))
}

/// Replaces a file in one step: whoever waits for it never reads half of it.
///
/// # Errors
/// If the folder cannot be written.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = beside(path)?;
    std::fs::write(&beside, bytes).with_context(|| format!("{} cannot be written", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("{} cannot be written", path.display()))
}

/// Where the new file lies until it is whole.
fn beside(path: &Path) -> anyhow::Result<PathBuf> {
    let mut name = path.file_name().context("a file needs a name")?.to_owned();
    name.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        write_secret(&path, b"kbop_x").expect("writes");
        assert_eq!(*read_secret(&path).expect("reads"), "kbop_x");
        assert!(write_secret(&path, b"other").is_err(), "never overwritten");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(read_secret(&path).expect_err("refused").to_string().contains("chmod 600"));
    }

    #[test]
    fn a_new_file_in_which_nothing_was_put_is_taken_away_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        let file = NewFile::make(&path).expect("made");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let refused = NewFile::make(&path).err().expect("refused").to_string();
        assert!(refused.contains("exists: it is not overwritten"), "{refused}");
        assert!(path.exists(), "and the one that was there stays");
        drop(file);
        assert!(!path.exists());
        NewFile::make(&path).expect("made").keep().expect("kept");
        assert!(path.exists());
    }
}
