//! The detector: walks a ledger and finds every use of what was not to be used any more. It reads what
//! stands there and believes it; whether it may be believed is verify.rs's to say. Blocks.
//!
//! What makes it decidable: an act is recorded after nothing of what it ended can be sent any more, and
//! before it is acknowledged; an intent is recorded before its first byte. So a dispatch whose intent
//! stands behind an act, and that names what the act ended, is a finding, unless its outcome says that
//! nothing was sent: it was refused under its guard.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::path::Path;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::DispatchId;
use keybearer_contract::TenantId;
use serde::Serialize;

use crate::Act;
use crate::ActKind;
use crate::Body;
use crate::DispatchFacts;
use crate::Filter;
use crate::Purpose;
use crate::Record;
use crate::entry::raised_epoch;
use crate::read;

/// What an audit came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Records that were looked at.
    pub records: u64,
    /// Dispatches with a credential among them.
    pub dispatches: u64,
    /// Acts that ended something among them.
    pub acts: u64,
    /// What was found, in order; at most 10 000.
    pub findings: Vec<Finding>,
    /// Findings beyond that.
    pub left_out: u64,
}

/// One use of what was not to be used any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub misuse: Misuse,
    /// The record that shows it.
    pub seq: u64,
    /// The act that had ended what was used; none where no act did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// What had been ended: an id or name.
    pub subject: String,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// The dispatch, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<DispatchId>,
    /// The version that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The epoch that it was used at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Misuse {
    /// A version was used after the rotation or revocation that ended it was acknowledged.
    StaleVersion,
    /// The version is not the one that its epoch's act made.
    WrongVersion,
    /// A grant was used after it was taken.
    TakenGrant,
    /// A token, subject or SPIFFE id called after it was revoked.
    RevokedPrincipal,
    /// A tool or package was run after it was revoked or withdrawn.
    RevokedTool,
    /// A package was run after its signer was revoked.
    RevokedSigner,
    /// A tool was run while an open incident kept it in quarantine.
    QuarantinedTool,
    /// A call of a run ran after the run had ended.
    EndedRun,
    /// A tenant's call ran while it was suspended.
    SuspendedTenant,
    /// Such a use has no outcome: nobody knows whether it happened.
    Unproven,
    /// An act made an epoch that is not above the one before.
    EpochWentBack,
}

/// Findings that are listed; a ledger with more is not to be read line by line.
const FINDINGS_MAX: usize = 10_000;

/// How an act of quarantine names all that a tenant may call. No tool has a space in its name.
pub const EVERY_TOOL: &str = "every tool";

/// Audits the ledger in a folder, all of it or the part of one tenant.
///
/// # Errors
/// A segment cannot be read, or holds a line that is no record.
pub fn audit(dir: &Path, tenant: Option<&TenantId>) -> io::Result<Audit> {
    let mut auditor = Auditor { only: tenant.cloned(), ..Auditor::default() };
    for segment in read::segments(dir)? {
        read::each(&segment, &Filter::default(), |record, _| {
            auditor.take(record);
            Ok(())
        })?;
    }
    Ok(auditor.end())
}

/// Incidents, each with its act of quarantine.
type Because = Vec<(String, u64)>;

/// What acts have ended so far, by what a dispatch or call names.
#[derive(Default)]
struct Auditor {
    only: Option<TenantId>,
    audit: Audit,
    credentials: HashMap<CredentialId, Life>,
    ended: HashMap<(Misuse, Option<TenantId>, String), u64>,
    /// Who signed each package, as its publication says.
    signers: HashMap<String, String>,
    /// What is in quarantine, for whom, because of which incidents, each with its act.
    quarantines: HashMap<(Option<TenantId>, String), Because>,
    /// Uses that are findings unless their outcome says that nothing was sent.
    suspected: HashMap<DispatchId, Finding>,
    /// Calls that began after something that they name was ended: findings unless they were cut off.
    calls: HashMap<CallId, Finding>,
}

/// What acts made of one credential.
#[derive(Default)]
struct Life {
    epoch: u64,
    /// The act that raised it.
    seq: u64,
    is_revoked: bool,
    /// The version that the epoch's act made, and those that were used at epochs whose act is not recorded yet:
    /// the store has an act before the ledger does.
    versions: HashMap<u64, u32>,
    used: HashMap<u64, Finding>,
}

impl Auditor {
    fn take(&mut self, record: Record) {
        self.audit.records += 1;
        let seq = record.seq;
        match record.body {
            Body::Act { act } => self.act(seq, &act),
            Body::CallBegun { facts } => {
                let (ended, call) = (self.ended_for(&facts).or_else(|| self.quarantined(&facts)), facts.call.clone());
                if let Some((misuse, after, subject)) = ended {
                    let finding = Finding { call: Some(call.clone()), ..found(misuse, seq, Some(after), subject) };
                    self.calls.insert(call, Finding { tenant: Some(facts.tenant), ..finding });
                }
            }
            Body::CallClosed { facts, outcome } => {
                let finding = self.calls.remove(&facts.call);
                if let Some(finding) = finding.filter(|_| outcome.problem.is_none()) {
                    self.find(finding);
                }
            }
            Body::CallAbandoned { facts } | Body::CallUnknown { facts } => {
                self.calls.remove(&facts.call);
            }
            Body::RunEnded { run, .. } => {
                self.audit.acts += 1;
                self.ended.insert((Misuse::EndedRun, Some(run.tenant), run.run.to_string()), seq);
            }
            Body::DispatchIntended { dispatch } => self.intent(seq, &dispatch),
            Body::DispatchClosed { dispatch, outcome } => {
                let finding = self.suspected.remove(&dispatch.dispatch);
                if let Some(finding) = finding.filter(|_| outcome.delivery != Delivery::NotSent) {
                    self.find(finding);
                }
            }
            Body::DispatchAbandoned { dispatch } | Body::DispatchUnknown { dispatch } => {
                if let Some(finding) = self.suspected.remove(&dispatch.dispatch) {
                    self.find(Finding { misuse: Misuse::Unproven, ..finding });
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, seq: u64, act: &Act) {
        if let Some((credential, epoch)) = raised_epoch(act).filter(|_| act.what != ActKind::VersionDestroyed) {
            self.audit.acts += 1;
            return self.raised(seq, act, credential, epoch);
        }
        match act.what {
            ActKind::Quarantined => return self.quarantine(seq, act),
            ActKind::IncidentClosed => return self.lift(&act.subject),
            ActKind::SignerRevoked => return self.signer_revoked(seq, &act.subject),
            // Under another signature it is another's.
            ActKind::PackagePublished => {
                self.signers.insert(act.subject.clone(), act.note.clone());
                self.ended.remove(&(Misuse::RevokedSigner, None, act.subject.clone()));
            }
            _ => {}
        }
        let (misuse, subject, ends) = match act.what {
            ActKind::GrantTaken => (Misuse::TakenGrant, act.subject.clone(), true),
            ActKind::TokenRevoked => (Misuse::RevokedPrincipal, format!("token:{}", act.subject), true),
            ActKind::PrincipalRevoked => (Misuse::RevokedPrincipal, act.subject.clone(), true),
            ActKind::PrincipalRestored => (Misuse::RevokedPrincipal, act.subject.clone(), false),
            ActKind::PackageWithdrawn | ActKind::ToolRevoked => (Misuse::RevokedTool, act.subject.clone(), true),
            ActKind::PackagePublished | ActKind::ToolRestored => (Misuse::RevokedTool, act.subject.clone(), false),
            ActKind::TenantSuspended => (Misuse::SuspendedTenant, act.subject.clone(), true),
            ActKind::TenantResumed => (Misuse::SuspendedTenant, act.subject.clone(), false),
            _ => return,
        };
        self.audit.acts += u64::from(ends);
        // A package or tool is the operator's, whoever records the act.
        let tenant = act.tenant.clone().filter(|_| misuse != Misuse::RevokedTool);
        let key = (misuse, tenant, subject);
        if ends {
            self.ended.entry(key).or_insert(seq);
        } else {
            self.ended.remove(&key);
        }
    }

    fn signer_revoked(&mut self, seq: u64, signer: &str) {
        self.audit.acts += 1;
        for (package, _) in self.signers.iter().filter(|(_, by)| *by == signer) {
            self.ended.entry((Misuse::RevokedSigner, None, package.clone())).or_insert(seq);
        }
    }

    fn quarantine(&mut self, seq: u64, act: &Act) {
        self.audit.acts += 1;
        let because = self.quarantines.entry((act.tenant.clone(), act.subject.clone())).or_default();
        if !because.iter().any(|(incident, _)| *incident == act.note) {
            because.push((act.note.clone(), seq));
        }
    }

    /// What another incident covers as well stays in quarantine.
    fn lift(&mut self, incident: &str) {
        self.quarantines.retain(|_, because| {
            because.retain(|(of, _)| of != incident);
            !because.is_empty()
        });
    }

    fn raised(&mut self, seq: u64, act: &Act, credential: CredentialId, epoch: u64) {
        let life = self.credentials.entry(credential).or_default();
        let mut findings = Vec::new();
        if epoch <= life.epoch {
            let finding = found(Misuse::EpochWentBack, seq, Some(life.seq), act.subject.clone());
            findings.push(Finding { tenant: act.tenant.clone(), epoch: Some(epoch), ..finding });
        }
        life.seq = seq;
        life.epoch = epoch.max(life.epoch);
        life.is_revoked |= act.what == ActKind::CredentialRevoked;
        let newest = life.epoch;
        life.versions.retain(|of, _| *of >= newest);
        if let Some(version) = act.version {
            life.versions.insert(epoch, version);
        }
        let early = life.used.remove(&epoch).filter(|used| used.version != act.version);
        findings.extend(early.map(|used| Finding { misuse: Misuse::WrongVersion, after: Some(seq), ..used }));
        life.used.retain(|of, _| *of > newest);
        findings.into_iter().for_each(|finding| self.find(finding));
    }

    fn intent(&mut self, seq: u64, dispatch: &DispatchFacts) {
        // What was minted is given back as a part of the act that ended it.
        if dispatch.purpose == Purpose::GiveBack {
            return;
        }
        self.audit.dispatches += u64::from(dispatch.credential.is_some());
        let grant = dispatch.grant.as_ref().and_then(|grant| {
            let key = (Misuse::TakenGrant, Some(dispatch.facts.tenant.clone()), grant.to_string());
            self.ended.get(&key).map(|after| (key.0, *after, key.2.clone()))
        });
        let finding = grant
            .or_else(|| self.ended_for(&dispatch.facts))
            .or_else(|| self.quarantined(&dispatch.facts))
            .map(|(misuse, after, subject)| of_dispatch(found(misuse, seq, Some(after), subject), dispatch))
            .or_else(|| self.of_credential(seq, dispatch));
        if let Some(finding) = finding {
            self.suspected.insert(dispatch.dispatch.clone(), finding);
        }
    }

    fn of_credential(&mut self, seq: u64, dispatch: &DispatchFacts) -> Option<Finding> {
        let (credential, epoch) = (dispatch.credential.as_ref()?, dispatch.epoch?);
        // What no act is known of was stored before this ledger begins.
        let life = self.credentials.get_mut(credential)?;
        let finding = |misuse| of_dispatch(found(misuse, seq, Some(life.seq), credential.to_string()), dispatch);
        if epoch < life.epoch || life.is_revoked {
            return Some(finding(Misuse::StaleVersion));
        }
        match life.versions.get(&epoch) {
            Some(version) if Some(*version) != dispatch.version => Some(finding(Misuse::WrongVersion)),
            Some(_) => None,
            None => {
                let used = finding(Misuse::WrongVersion);
                life.used.entry(epoch).or_insert(used);
                None
            }
        }
    }

    /// What that a call names had been ended.
    fn ended_for(&self, facts: &keybearer_gate::Facts) -> Option<(Misuse, u64, String)> {
        if self.ended.is_empty() {
            return None;
        }
        let tenant = || Some(facts.tenant.clone());
        [
            (Misuse::RevokedPrincipal, tenant(), facts.principal.to_string()),
            (Misuse::EndedRun, tenant(), facts.run.to_string()),
            (Misuse::SuspendedTenant, tenant(), facts.tenant.to_string()),
            (Misuse::RevokedTool, None, facts.package.to_string()),
            (Misuse::RevokedTool, None, facts.tool.to_string()),
            (Misuse::RevokedSigner, None, facts.package.to_string()),
        ]
        .into_iter()
        .find_map(|key| self.ended.get(&key).map(|after| (key.0, *after, key.2.clone())))
    }

    /// The quarantine that a call's tool is in, for its tenant or for everybody.
    fn quarantined(&self, facts: &keybearer_gate::Facts) -> Option<(Misuse, u64, String)> {
        if self.quarantines.is_empty() {
            return None;
        }
        let names = [facts.tool.to_string(), facts.tool.package.to_string(), EVERY_TOOL.to_owned()];
        let keys = names.into_iter().flat_map(|name| [(None, name.clone()), (Some(facts.tenant.clone()), name)]);
        keys.into_iter().find_map(|key| {
            let (_, after) = self.quarantines.get(&key)?.first()?;
            Some((Misuse::QuarantinedTool, *after, key.1))
        })
    }

    fn find(&mut self, finding: Finding) {
        if self.only.is_some() && self.only != finding.tenant {
            return;
        }
        if self.audit.findings.len() < FINDINGS_MAX {
            self.audit.findings.push(finding);
        } else {
            self.audit.left_out += 1;
        }
    }

    fn end(mut self) -> Audit {
        let open: Vec<_> = self.suspected.drain().map(|(_, finding)| finding).collect();
        open.into_iter().for_each(|finding| self.find(Finding { misuse: Misuse::Unproven, ..finding }));
        self.audit.findings.sort_by_key(|finding| finding.seq);
        let mut seen = HashSet::new();
        self.audit.findings.retain(|finding| seen.insert((finding.misuse, finding.seq)));
        self.audit
    }
}

fn found(misuse: Misuse, seq: u64, after: Option<u64>, subject: String) -> Finding {
    Finding { misuse, seq, after, subject, tenant: None, call: None, dispatch: None, version: None, epoch: None }
}

fn of_dispatch(finding: Finding, dispatch: &DispatchFacts) -> Finding {
    Finding {
        tenant: Some(dispatch.facts.tenant.clone()),
        call: Some(dispatch.facts.call.clone()),
        dispatch: Some(dispatch.dispatch.clone()),
        version: dispatch.version,
        epoch: dispatch.epoch,
        ..finding
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
