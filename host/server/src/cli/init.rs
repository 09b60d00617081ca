//! `keybearer init`: a folder that only its owner can enter, a configuration, and the operator's token.
//! The master key is made at the first start.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::ensure;
use clap::Args;
use serde_json::json;

use crate::cli::output::Output;
use crate::config;
use crate::files;

#[derive(Args)]
pub(crate) struct Init {
    /// The folder; made if it is not there
    #[arg(long, value_name = "FOLDER", default_value = config::DEFAULT_FOLDER)]
    folder: PathBuf,
}

impl Init {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let folder = &self.folder;
        let config = folder.join("keybearer.toml");
        let token = folder.join("operator.token");
        let hint = if token.exists() { "" } else { "; a lost operator's token: `keybearer operator new-token`" };
        ensure!(!config.exists(), "{} exists: nothing was changed{hint}", config.display());
        ensure!(!token.exists(), "{} exists: nothing was changed", token.display());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        // It may have been there with other rights.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        files::write_secret(&token, keybearer_gate::issue_operator_token().as_bytes())?;
        files::replace(&config, config::EXAMPLE.as_bytes())?;
        let (config, token) = (config.display(), token.display());
        let sentence = format!(
            "made {config} and {token}\n\
             next:\n  \
             keybearer --config {config} serve\n  \
             keybearer --config {config} tenant create acme\n  \
             keybearer --config {config} token issue --tenant acme --label admin --scope call,credentials,grants,tokens,audit --out acme.token"
        );
        output.say(&sentence, &json!({ "config": config.to_string(), "operator_token_file": token.to_string() }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_made_folder_is_its_owners_and_its_configuration_holds() {
        let outer = tempfile::tempdir().expect("folder");
        let init = Init { folder: outer.path().join("home") };
        init.run(&Output { json: false }).expect("made");
        assert_eq!(std::fs::metadata(&init.folder).expect("there").mode() & 0o777, 0o700);
        let config = config::Config::read(&init.folder.join("keybearer.toml")).expect("holds");
        assert!(files::read_secret(&config.operator_token_file).expect("0600").starts_with("kbop_"));
        assert!(init.run(&Output { json: false }).is_err(), "never twice");
    }
}
