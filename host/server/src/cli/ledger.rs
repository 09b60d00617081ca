//! `keybearer ledger`: verifying and reading the ledger's files on this machine, also while a server
//! writes them. It asks no server.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap::Subcommand;
use keybearer_ledger::Broken;
use keybearer_ledger::Filter;
use keybearer_ledger::PublicKey;
use keybearer_ledger::Reader;
use keybearer_ledger::Verified;
use keybearer_ledger::verify;
use serde_json::Value;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output;
use crate::cli::output::Output;
use crate::cli::progress::Spinner;
use crate::files::NewFile;

#[derive(Subcommand)]
pub(crate) enum Ledger {
    /// Verify the chain, the checkpoints and the anchor
    Verify {
        #[command(flatten)]
        place: Place,
    },
    /// Verify, and find every use of what had been rotated out, revoked, taken, withdrawn or suspended: exit status 1 if there
    /// is one
    Audit {
        #[command(flatten)]
        place: Place,
        /// Only what concerns this tenant's id
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
    },
    /// Print the last records
    Tail {
        #[command(flatten)]
        place: Place,
        /// How many
        #[arg(long, default_value_t = 20)]
        count: usize,
        #[command(flatten)]
        of: Of,
    },
    /// Copy records, one JSON object a line, as they stand
    Export {
        #[command(flatten)]
        place: Place,
        /// Into this new file instead of stdout
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
}

/// Where the ledger lies, if not where the configuration says.
#[derive(Args)]
pub(crate) struct Place {
    /// The ledger's folder
    #[arg(long, value_name = "FOLDER", requires = "anchor")]
    folder: Option<PathBuf>,
    /// The anchor
    #[arg(long, value_name = "FILE", requires = "folder")]
    anchor: Option<PathBuf>,
    /// The ledger's public key, 64 hex digits, as you noted it; default: the one beside the ledger
    #[arg(long, value_name = "HEX")]
    public_half: Option<String>,
}

/// Which records.
#[derive(Args)]
pub(crate) struct Of {
    /// Of this tenant's id
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Of this call
    #[arg(long, value_name = "ID")]
    call: Option<String>,
}

impl Place {
    fn resolve(&self, global: &Global) -> anyhow::Result<(PathBuf, PathBuf)> {
        if let (Some(folder), Some(anchor)) = (&self.folder, &self.anchor) {
            return Ok((folder.clone(), anchor.clone()));
        }
        let config = global.read_config()?;
        Ok((config.folder.join("ledger"), config.anchor))
    }

    /// Verifies it, as it lies there.
    fn verify(&self, global: &Global) -> anyhow::Result<Result<Verified, Broken>> {
        let (folder, anchor) = self.resolve(global)?;
        let key = match &self.public_half {
            Some(hex) => hex.to_owned(),
            None => std::fs::read_to_string(folder.join("checkpoint.pub"))
                .with_context(|| format!("{} holds no checkpoint.pub: is it a ledger's folder?", folder.display()))?,
        };
        let key: PublicKey = key.trim().parse().context("the public key")?;
        let _spinner = Spinner::new("verifying the ledger");
        Ok(verify(&folder, &anchor, &key))
    }

    /// Why what the ledger says is not to be relied on, if that is so.
    fn doubt(&self, global: &Global) -> Option<String> {
        match self.verify(global) {
            Ok(Ok(_)) => None,
            Ok(Err(broken)) => Some(format!("THE LEDGER IS BROKEN: {broken}")),
            Err(error) => Some(format!("the ledger cannot be verified: {error:#}")),
        }
    }

    /// Says on stderr if what was printed is not to be relied on: whoever looks at a record may not have asked first
    /// whether it was edited. The output stands all the same, as evidence.
    fn warn(&self, global: &Global) -> ExitCode {
        let Some(doubt) = self.doubt(global) else { return ExitCode::SUCCESS };
        eprintln!("{doubt}: do not rely on what was printed");
        ExitCode::FAILURE
    }
}

impl Of {
    fn filter(&self) -> anyhow::Result<Filter> {
        let tenant = self.tenant.as_deref().map(str::parse).transpose().context("--tenant")?;
        let call = self.call.as_deref().map(str::parse).transpose().context("--call")?;
        Ok(Filter { tenant, call })
    }
}

impl Ledger {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Verify { place } => verify_all(place, global, output),
            Self::Audit { place, tenant } => audit_all(place, tenant.as_deref(), global, output),
            Self::Tail { place, count, of } => {
                let (folder, _) = place.resolve(global)?;
                let records = Reader::new(&folder).tail(*count, &of.filter()?).context("the ledger cannot be read")?;
                for record in records {
                    let value = serde_json::to_value(&record)?;
                    output.line(&if output.json { value.to_string() } else { sentence(&value) });
                }
                if bytes_of(&folder)? > TAIL_VERIFIED_BYTES_MAX {
                    eprintln!("(not verified, for the ledger's length: `keybearer ledger verify` does)");
                    return Ok(ExitCode::SUCCESS);
                }
                Ok(place.warn(global))
            }
            Self::Export { place, out, of } => {
                let ((folder, _), filter) = (place.resolve(global)?, of.filter()?);
                let count = match out {
                    Some(path) => {
                        let mut file = NewFile::make(path)?;
                        let mut writer = std::io::BufWriter::new(file.writer());
                        let count = Reader::new(&folder).export(&filter, &mut writer).context(COPYING)?;
                        writer.flush()?;
                        drop(writer);
                        file.keep()?;
                        count
                    }
                    None => Reader::new(&folder).export(&filter, &mut std::io::stdout().lock()).context(COPYING)?,
                };
                eprintln!("{count} records");
                Ok(place.warn(global))
            }
        }
    }
}

const COPYING: &str = "the ledger cannot be read or copied";

/// The last records of a longer ledger are shown unverified: verifying takes seconds a GiB, and `tail` is for a glance.
const TAIL_VERIFIED_BYTES_MAX: u64 = 256 << 20;

fn bytes_of(folder: &Path) -> anyhow::Result<u64> {
    let files = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len()));
    files.sum::<std::io::Result<u64>>().context("the ledger cannot be read")
}

fn verify_all(place: &Place, global: &Global, output: &Output) -> anyhow::Result<ExitCode> {
    let verified = match place.verify(global)? {
        Ok(verified) => verified,
        Err(broken) => {
            let (why, segment) = (broken.why.to_string(), &broken.segment);
            let value = json!({ "holds": false, "segment": segment, "line": broken.line, "why": why });
            output.say(&format!("THE LEDGER IS BROKEN: {broken}"), &value);
            return Ok(ExitCode::FAILURE);
        }
    };
    let value = json!({
        "holds": true,
        "records": verified.records,
        "segments": verified.segments,
        "checkpoints": verified.checkpoints,
        "anchored": verified.anchored,
        "torn_bytes": verified.torn_bytes,
    });
    let noted = place.public_half.is_some();
    let hint = if noted { "" } else { "\n(with the key beside it: note it elsewhere and name it with --public-half)" };
    let sentence = format!(
        "the ledger holds: {} records in {} segments, {} signed checkpoints, anchored up to record {}{hint}",
        verified.records, verified.segments, verified.checkpoints, verified.anchored
    );
    output.say(&sentence, &value);
    Ok(ExitCode::SUCCESS)
}

fn audit_all(place: &Place, tenant: Option<&str>, global: &Global, output: &Output) -> anyhow::Result<ExitCode> {
    let tenant = tenant.map(str::parse).transpose().context("--tenant")?;
    let (folder, _) = place.resolve(global)?;
    let doubt = place.doubt(global);
    let spinner = Spinner::new("auditing the ledger");
    let audited = keybearer_ledger::audit(&folder, tenant.as_ref());
    drop(spinner);
    let audited = audited.context("the ledger cannot be read")?;
    let mut value = serde_json::to_value(&audited)?;
    value["holds"] = json!(doubt.is_none());
    value["why"] = json!(doubt);
    let counts = format!(
        "{} records, {} dispatches with a credential, {} acts that ended something",
        audited.records, audited.dispatches, audited.acts
    );
    let mut text = match &doubt {
        // What was edited clears nobody; what it has against somebody is shown all the same.
        Some(doubt) => format!("{doubt}\nso what follows is what it says, and not what was: "),
        None => String::new(),
    };
    if audited.findings.is_empty() {
        text.push_str(&format!("nothing was used after it was ended: {counts}"));
        output.say(&text, &value);
        return Ok(if doubt.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let found = audited.findings.len() as u64 + audited.left_out;
    text.push_str(&format!("{found} USES OF WHAT HAD BEEN ENDED, {} of them not listed: {counts}", audited.left_out));
    for finding in &audited.findings {
        text.push('\n');
        text.push_str(&sentence(&serde_json::json!({ "seq": finding.seq, "kind": finding.misuse, "of": finding })));
    }
    output.say(&text, &value);
    Ok(ExitCode::FAILURE)
}

/// A record as one line for people.
fn sentence(record: &Value) -> String {
    const SHOWN_ELSEWHERE: &[&str] = &["seq", "time", "prev", "hash", "kind"];
    // What an audit found has no time of its own.
    let time = record["time"].as_u64().map(|ms| format!("{}  ", output::time(ms))).unwrap_or_default();
    let kind = record["kind"].as_str().unwrap_or("-");
    let mut text = format!("{:>8}  {time}{kind:<18}", record["seq"].to_string());
    for (name, value) in record.as_object().into_iter().flatten() {
        if SHOWN_ELSEWHERE.contains(&name.as_str()) || value.is_null() {
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("  {name}={value}"));
    }
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
