//! What the server shows only once: tokens and secrets of what was just made. Where they go is settled before the
//! server is asked for anything, since afterwards it would be too late: what cannot be kept is not asked for.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::failure::Cause;
use crate::cli::output::Output;
use crate::files::NewFile;

/// Where it goes: into a new file, or to stdout. Made before the request; a file in which nothing was put is taken
/// away again.
pub(crate) struct Once(Option<NewFile>);

impl Once {
    /// Makes the file, if one is named.
    ///
    /// # Errors
    /// If it exists or cannot be made: the server is not asked, then.
    pub(crate) fn into(out: Option<&Path>) -> anyhow::Result<Self> {
        let made = out.map(NewFile::make).transpose().context("nothing was asked of the server");
        made.map(Self).map_err(|error| Cause::FileUnwritable.of(error))
    }

    /// Puts this field of an answer there. `sentence` says what was made, for whoever has the file; without a file it
    /// goes to stderr, beside the field on stdout.
    ///
    /// # Errors
    /// If the answer lacks the field, or the file cannot be written, as on a full disk: it says what was made.
    pub(crate) fn show(self, mut answer: Value, field: &str, sentence: &str, output: &Output) -> anyhow::Result<()> {
        let made = answer["id"].as_str().unwrap_or("it").to_owned();
        let text = answer[field].as_str().with_context(|| format!("the answer holds no {field}"))?.to_owned();
        let Some(file) = self.0 else {
            output.say(&text, &answer);
            if !output.json {
                eprintln!("{sentence}");
            }
            return Ok(());
        };
        let place = file.path().display().to_string();
        file.write(text.as_bytes()).with_context(|| {
            format!("{made} was made, but what is shown only this once is lost: end it, and make another")
        })?;
        answer.as_object_mut().into_iter().for_each(|members| drop(members.remove(field)));
        output.say(&format!("{sentence}; what is shown only this once is in {place}"), &answer);
        Ok(())
    }
}
