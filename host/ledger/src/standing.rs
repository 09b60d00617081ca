//! What is open, and the highest epochs: what a record changes in that, and the new segment at whose head it is said
//! again. Not for appending.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::DispatchId;
use keybearer_contract::IdMap;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Serialize;

use crate::DispatchFacts;
use crate::EpochSeen;
use crate::Head;
use crate::LedgerConfig;
use crate::PublicKey;
use crate::checkpoint::SigningKey;
use crate::checkpoint::place_file;
use crate::line;
use crate::record::encode;

/// What a record changes in what is known to be open.
pub(crate) enum Effect<'record> {
    Nothing,
    BeginCall(&'record CallId, &'record Arc<[u8]>),
    EndCall(&'record CallId),
    Intend(&'record DispatchFacts, &'record Arc<[u8]>),
    EndDispatch(&'record DispatchId),
    Act { raised: Option<(&'record TenantId, &'record CredentialId, u64)>, commit: u64 },
}

/// What is open, and the highest epochs: said again at the head of every segment.
#[derive(Default)]
pub(crate) struct Standing {
    pub(crate) calls: IdMap<CallId, Arc<[u8]>>,
    pub(crate) dispatches: IdMap<DispatchId, Arc<[u8]>>,
    pub(crate) epochs: IdMap<(TenantId, CredentialId), u64>,
    pub(crate) commit: u64,
}

impl Standing {
    pub(crate) fn apply(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Nothing => {}
            Effect::BeginCall(call, text) => {
                self.calls.insert(call.clone(), Arc::clone(text));
            }
            Effect::EndCall(call) => {
                self.calls.remove(call);
            }
            Effect::Intend(dispatch, text) => {
                self.dispatches.insert(dispatch.dispatch.clone(), Arc::clone(text));
                if let (Some(credential), Some(epoch)) = (&dispatch.credential, dispatch.epoch) {
                    self.raise(&dispatch.facts.tenant, credential, epoch);
                }
            }
            Effect::EndDispatch(dispatch) => {
                self.dispatches.remove(dispatch);
            }
            Effect::Act { raised, commit } => {
                raised.inspect(|(tenant, credential, epoch)| self.raise(tenant, credential, *epoch));
                self.commit = self.commit.max(commit);
            }
        }
    }

    pub(crate) fn raise(&mut self, tenant: &TenantId, credential: &CredentialId, epoch: u64) {
        let highest = self.epochs.entry((tenant.clone(), credential.clone())).or_insert(epoch);
        *highest = epoch.max(*highest);
    }
}

/// A new segment, on the disk.
pub(crate) struct Begun {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) end: u64,
    pub(crate) head: Head,
}

/// Epochs in one record: a line of about 25 KiB.
const EPOCHS_PER_RECORD: usize = 200;

/// Writes a new segment whole, with what stands, signed at its end.
pub(crate) fn begin_segment(
    config: &LedgerConfig,
    key: &SigningKey,
    now: UnixMillis,
    head: Head,
    standing: &Standing,
) -> io::Result<Begun> {
    #[derive(Serialize)]
    struct First {
        format: u32,
        public_key: PublicKey,
    }
    #[derive(Serialize)]
    struct Epochs<'some> {
        epochs: &'some [EpochSeen],
        commit: u64,
    }
    let mut text = Vec::new();
    let mut end = head;
    let mut say = |kind, body: &[u8]| end = line::seal(&mut text, end, now, kind, body);
    say("segment", &encode::extend(Vec::new(), &First { format: 1, public_key: key.public_key() }));
    let seen = |((tenant, credential), epoch): (&(TenantId, CredentialId), &u64)| EpochSeen {
        tenant: tenant.clone(),
        credential: credential.clone(),
        epoch: *epoch,
    };
    let epochs: Vec<EpochSeen> = standing.epochs.iter().map(seen).collect();
    let commit = standing.commit;
    for epochs in epochs.chunks(EPOCHS_PER_RECORD).chain((commit > 0 && epochs.is_empty()).then_some(&[][..])) {
        say("epochs", &encode::extend(Vec::new(), &Epochs { epochs, commit }));
    }
    for call in standing.calls.values() {
        say("open_call", call);
    }
    for dispatch in standing.dispatches.values() {
        say("open_dispatch", dispatch);
    }
    let checkpoint = key.sign(end, now);
    let end = line::seal(&mut text, end, now, "checkpoint", &encode::extend(Vec::new(), &checkpoint));
    let name = segment_name(head.seq + 1);
    let file = place_file(&config.dir, &name, &text)?;
    Ok(Begun { file, path: config.dir.join(name), end: text.len() as u64, head: end })
}

pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}
