//! Explaining a call: why a credential was or was not attached, request by request, from the ledger. For
//! the tenant's administrator; the guest heard one `denied` for all of it (P10).

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_ledger::Body;
use keybearer_ledger::DispatchFacts;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Record;

use crate::Executor;
use crate::Explanation;

impl Executor {
    /// What the ledger says of one call of the tenant's.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub async fn explain(&self, context: &TenantContext, call: &CallId) -> Result<Explanation, Problem> {
        context.require(Scope::Audit)?;
        let (reader, tenant, wanted) = (self.ledger.reader(), context.tenant().clone(), call.clone());
        let records = tokio::task::spawn_blocking(move || reader.of_call(&tenant, &wanted)).await;
        let records = match records {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger cannot be read");
                return Err(Problem::new(Code::LedgerUnavailable, "the ledger cannot be read now: try again"));
            }
            Err(_) => return Err(Problem::new(Code::Internal, "try again; if it stays, tell the operator")),
        };
        if records.is_empty() {
            return Err(Problem::not_found());
        }
        Ok(Explanation {
            call: call.clone(),
            sentences: records.iter().filter_map(sentence).collect(),
            records: records.iter().map(|record| serde_json::to_value(record).unwrap_or_default()).collect(),
        })
    }
}

fn sentence(record: &Record) -> Option<String> {
    Some(match &record.body {
        Body::CallBegun { facts } => format!("{} was called by {}", facts.tool, facts.principal),
        Body::DispatchRefused { method, place, refusal, .. } => {
            let method = match method {
                Some(method) => format!("{} ", method.as_str()),
                None => String::new(),
            };
            format!("{method}{place} was refused, no credential attached: {refusal}")
        }
        Body::DispatchIntended { dispatch } => intended(dispatch),
        Body::DispatchClosed { dispatch, outcome } => closed(dispatch, outcome),
        Body::DispatchAbandoned { dispatch } | Body::DispatchUnknown { dispatch } => {
            format!("{} has no outcome: the upstream may have acted", dispatch.place)
        }
        Body::CallClosed { outcome, .. } => match outcome.problem {
            None => format!("the call ended with a result of {} bytes", outcome.result_bytes),
            Some(code) => format!("the call ended with `{}`", code.as_str()),
        },
        Body::CallAbandoned { .. } | Body::CallUnknown { .. } => "the call was cut off".to_owned(),
        _ => return None,
    })
}

fn intended(dispatch: &DispatchFacts) -> String {
    let method = dispatch.method.map(|method| format!("{} ", method.as_str())).unwrap_or_default();
    let place = format!("{method}{}", dispatch.place);
    if let (Some(signed), Some(credential), Some(slot)) = (&dispatch.signed, &dispatch.credential, &dispatch.slot) {
        let (version, epoch) = (dispatch.version.unwrap_or_default(), dispatch.epoch.unwrap_or_default());
        return format!(
            "{place} was asked of slot `{slot}`: version {version} of {credential}, at epoch {epoch}, was to sign {} bytes",
            signed.bytes
        );
    }
    let proven = dispatch
        .svid
        .as_ref()
        .map_or_else(String::new, |serial| format!(", proving the X.509-SVID with serial {serial}"));
    match (&dispatch.credential, &dispatch.slot, dispatch.version, dispatch.epoch) {
        (Some(credential), Some(slot), Some(version), Some(epoch)) => {
            format!(
                "{place} was bound by slot `{slot}`: version {version} of {credential} was attached, at epoch {epoch}{proven}"
            )
        }
        (Some(credential), None, ..) => format!("{place} was asked to mint a token for {credential}{proven}"),
        _ => format!("{place} is on the allowlist: no credential was attached"),
    }
}

fn closed(dispatch: &DispatchFacts, outcome: &DispatchOutcome) -> String {
    let answered = match (outcome.status, outcome.fault) {
        (Some(status), _) => format!("answered {status}"),
        (None, Some(fault)) => {
            format!("failed: {}", serde_json::to_value(fault).unwrap_or_default().as_str().unwrap_or("unknown"))
        }
        (None, None) if dispatch.signed.is_some() => "was signed".to_owned(),
        (None, None) => "ended".to_owned(),
    };
    let reflected = match outcome.reflected {
        0 => String::new(),
        count => format!(", and sent the credential back {count} times: it was taken out"),
    };
    format!("{} {answered}{reflected}", dispatch.place)
}
