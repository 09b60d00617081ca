//! Files that hold secrets, and files that others wait for.

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use anyhow::ensure;
use zeroize::Zeroizing;

/// A secret file is a token or a key: short.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads a file that only its owner may read, without the line end.
///
/// # Errors
/// If it cannot be read, or others can read it.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mode = file.metadata()?.mode();
    ensure!(mode & 0o077 == 0, "{} can be read by others: chmod 600 {}", path.display(), path.display());
    let mut text = Zeroizing::new(String::with_capacity(512));
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("{} is no text", path.display()))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// If it exists or cannot be written.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be made (it may exist: it is not overwritten)", path.display()))?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(())
}

/// Replaces a file in one step: whoever waits for it never reads half of it.
///
/// # Errors
/// If the folder cannot be written.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().context("a file needs a name")?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    std::fs::write(&beside, bytes).with_context(|| format!("{} cannot be written", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("{} cannot be written", path.display()))
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
}
