//! `keybearer doctor`: looks at this machine as the server would, and says of each thing that is not well
//! what to do. It changes nothing, and looks at keys only to see that they are the keys of what lies here.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::process::ExitCode;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use keybearer_executor::OpenRefused;
use keybearer_executor::check_master_key;
use keybearer_ledger::PublicKey;
use keybearer_ledger::verify;
use keybearer_strongbox::MasterKey;
use keybearer_strongbox::MasterKeyRefused;
use serde_json::Value;
use serde_json::json;

use crate::api::auth::Verifiers;
use crate::cli::Global;
use crate::cli::output::Output;
use crate::config::Config;
use crate::files;
use crate::serve::SERVING_FILE;
use crate::tls;
use crate::tls::ClientCertificate;

/// What was found out about one thing.
enum Found {
    Well(String),
    /// Not wrong, but the operator should know.
    Note(String),
    Ill(String),
}

/// Runs every check; 1 if something must be mended.
pub(crate) fn run(global: &Global, output: &Output) -> anyhow::Result<ExitCode> {
    let mut found: Vec<(&str, Found)> = Vec::new();
    match global.read_config() {
        Err(error) => found.push(("configuration", Found::Ill(format!("{error:#}")))),
        Ok(config) => {
            found.push(("configuration", Found::Well(config.source.display().to_string())));
            found.extend(
                config.dangerous.iter().map(|name| ("configuration", Found::Note(format!("{name} is in force")))),
            );
            found.push(("folder", folder(&config)));
            found.push(("operator token", operator_token(&config)));
            found.push(("public listener", listener(&config, &config.public, ClientCertificate::Optional)));
            found.push(("admin listener", listener(&config, &config.admin, ClientCertificate::Required)));
            found.push(("store", store(&config)));
            found.push(("master key", master_key(&config)));
            found.push(("ledger", ledger(&config)));
            found.push(("anchor", anchor(&config)));
            found.push(("signers", signers(&config)));
            found.push(("identities", identities(&config)));
        }
    }
    found.push(("clock", clock()));
    found.push(("descriptors", descriptors()));
    found.push(("guest target", guest_target()));
    let ill = found.iter().any(|(_, found)| matches!(found, Found::Ill(_)));
    show(&found, output);
    Ok(if ill { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(found: &[(&str, Found)], output: &Output) {
    let mut rows: Vec<Value> = Vec::new();
    for (what, found) in found {
        let (state, sentence) = match found {
            Found::Well(sentence) => ("well", sentence),
            Found::Note(sentence) => ("note", sentence),
            Found::Ill(sentence) => ("MEND", sentence),
        };
        if output.json {
            rows.push(json!({ "state": state, "what": what, "sentence": sentence }));
            continue;
        }
        // A fault in the configuration shows the line that it is in: a row a line.
        let (mut state, mut what) = (state, *what);
        for line in sentence.lines() {
            rows.push(json!({ "state": state, "what": what, "sentence": line }));
            (state, what) = ("", "");
        }
    }
    output.show(&json!({ "items": rows }), &["state", "what", "sentence"]);
}

fn folder(config: &Config) -> Found {
    let path = config.folder.display();
    match std::fs::metadata(&config.folder) {
        Err(_) => Found::Ill(format!("{path} is not there: keybearer init --folder {path}")),
        Ok(meta) if !meta.is_dir() => Found::Ill(format!("{path} is no folder: change server.folder")),
        Ok(meta) if meta.mode() & 0o077 != 0 => Found::Ill(format!("{path} is open to others: chmod 700 {path}")),
        Ok(_) => Found::Well(path.to_string()),
    }
}

fn operator_token(config: &Config) -> Found {
    match files::read_operator_token(&config.operator_token_file) {
        Ok(_) => Found::Well(config.operator_token_file.display().to_string()),
        Err(error) => Found::Ill(format!("{error:#}")),
    }
}

fn listener(config: &Config, listener: &crate::config::Listener, client: ClientCertificate) -> Found {
    if let Some(Err(error)) = listener.tls.as_ref().map(|tls| tls::acceptor(tls, client)) {
        return Found::Ill(format!("{error:#}"));
    }
    let address: SocketAddr = listener.address;
    match TcpListener::bind(address) {
        Ok(_) => Found::Well(format!("{address} is free")),
        Err(_) if config.folder.join(SERVING_FILE).exists() => {
            Found::Note(format!("{address} is in use, by a running server as it seems"))
        }
        Err(error) => Found::Ill(format!(
            "{address} cannot be listened on ({error}): stop what listens there, or change `listen`"
        )),
    }
}

fn store(config: &Config) -> Found {
    let path = config.folder.join("store.db");
    if !path.exists() {
        let guard = config.folder.join("store.db.guard");
        let was_here = std::fs::metadata(guard).is_ok_and(|guard| guard.len() > 0);
        return if was_here { Found::Ill(format!("{} is gone: put it back", path.display())) } else { none_yet() };
    }
    // Every SQLite file begins so; what is in it is the server's to check when it starts.
    let mut head = [0; 16];
    let read = std::fs::File::open(&path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    match read {
        Ok(()) if &head == b"SQLite format 3\0" => private_file(&path),
        Ok(()) => Found::Ill(format!("{} is no SQLite database: put a backup back", path.display())),
        Err(error) => Found::Ill(format!("{} cannot be read ({error})", path.display())),
    }
}

fn none_yet() -> Found {
    Found::Note("none yet: it is made at the first start".to_owned())
}

/// The server makes it together with the store: a store without one has lost it.
fn master_key(config: &Config) -> Found {
    let path = config.folder.join("master.key");
    if !path.exists() {
        let has_store = config.folder.join("store.db").exists();
        let lost = format!("{} is gone: put the key back that belongs to this store", path.display());
        return if has_store { Found::Ill(lost) } else { none_yet() };
    }
    match MasterKey::open(&path) {
        Ok(key) => is_the_stores(config, &path, &key),
        Err(refused @ MasterKeyRefused::NotAKey { .. }) => {
            Found::Ill(format!("{refused}: put the key back that belongs to this store"))
        }
        Err(refused) => Found::Ill(refused.to_string()),
    }
}

fn is_the_stores(config: &Config, path: &Path, key: &MasterKey) -> Found {
    let (store, path) = (config.folder.join("store.db"), path.display());
    if !store.exists() {
        return Found::Well(format!("{path} is one"));
    }
    match check_master_key(&store, key) {
        Ok(()) => Found::Well(format!("{path} is this store's")),
        Err(refused @ OpenRefused::ForeignKey { .. }) => Found::Ill(format!("{path} is another store's: {refused}")),
        Err(refused) => Found::Note(format!("{path} is one; whether it is this store's cannot be seen: {refused}")),
    }
}

fn private_file(path: &Path) -> Found {
    match std::fs::metadata(path) {
        Err(_) => none_yet(),
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            Found::Ill(format!("{} can be read by others: chmod 600 {}", path.display(), path.display()))
        }
        Ok(_) => Found::Well(path.display().to_string()),
    }
}

fn ledger(config: &Config) -> Found {
    let folder = config.folder.join("ledger");
    let Ok(text) = std::fs::read_to_string(folder.join("checkpoint.pub")) else {
        let gone = format!("{} is gone, and its anchor is here: put the folder back", folder.display());
        return if config.anchor.exists() { Found::Ill(gone) } else { none_yet() };
    };
    let Ok(key) = text.trim().parse::<PublicKey>() else {
        return Found::Ill("ledger/checkpoint.pub is no public key: put the folder back from a backup".to_owned());
    };
    match verify(&folder, &config.anchor, &key) {
        Ok(verified) => Found::Well(format!("{} records hold", verified.records)),
        Err(broken) => Found::Ill(format!("it does not hold ({broken}): keep a copy, and find out who changed it")),
    }
}

fn anchor(config: &Config) -> Found {
    let inside = config.anchor.starts_with(config.folder.join("ledger"));
    if inside {
        return Found::Ill(
            "ledger.anchor lies in the ledger's own folder: name a place outside, best on another disk".to_owned(),
        );
    }
    if config.anchor.starts_with(&config.folder) {
        return Found::Note("ledger.anchor lies beside the ledger: on another disk it would prove more".to_owned());
    }
    Found::Well(config.anchor.display().to_string())
}

fn signers(config: &Config) -> Found {
    match config.packages.trusted_signers.len() {
        0 => Found::Note("packages.trusted_signers is empty: nothing can be published".to_owned()),
        // The server reads the list once.
        count => Found::Well(format!("{count} trusted; a server that runs already knows those of its start")),
    }
}

/// Whose tokens and certificates are taken: as the start reads it, but for the tenants, which the store knows.
fn identities(config: &Config) -> Found {
    match Verifiers::new(&config.jwt, &config.spiffe, &[]) {
        Ok(_) => Found::Well(format!("{} issuers of JWTs, {} workloads", config.jwt.len(), config.spiffe.len())),
        Err(error) => Found::Ill(format!("{error:#}")),
    }
}

/// 2026-01-01: this code is younger, so a clock before it is wrong.
const CLOCK_MIN_S: u64 = 1_767_225_600;

fn clock() -> Found {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() >= CLOCK_MIN_S => Found::Well("plausible".to_owned()),
        _ => Found::Ill("the clock is wrong: tokens and expiries need it; set it".to_owned()),
    }
}

/// Connections, upstreams and files of a busy server.
const DESCRIPTORS_MIN: u64 = 4096;

fn descriptors() -> Found {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.current {
        Some(current) if current < DESCRIPTORS_MIN => {
            Found::Note(format!("{current} open files are allowed: a busy server wants more (ulimit -n 65536)"))
        }
        Some(current) => Found::Well(format!("{current} open files are allowed")),
        None => Found::Well("open files are not limited".to_owned()),
    }
}

fn guest_target() -> Found {
    let triple = "wasm32-unknown-unknown";
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", triple]).output();
    match output {
        Ok(output) if Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() => {
            Found::Well(triple.to_owned())
        }
        Ok(_) => Found::Note(format!(
            "{triple} is not installed, which only authors of tools need: rustup target add {triple}"
        )),
        Err(_) => Found::Note("no Rust here, which only authors of tools need".to_owned()),
    }
}
