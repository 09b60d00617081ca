//! The rotation scheduler: carries each credential's rotation policy out, by its source's own means where it has
//! some, else by asking its owner with a countdown. Once a minute; each step of a countdown is told once, and what
//! is overdue once a day, however often the clock or the policy is turned.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RotationPolicy;
use keybearer_gate::TenantRecord;
use keybearer_gate::TenantState;
use keybearer_gate::VersionState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::Executor;
use crate::act;
use crate::mint::Times;
use crate::notices::Notice;
use crate::renewal::facts_of_act;

/// An issuer answers in well under a second, and is not asked for longer than ten.
const RENEWAL_MAX: Duration = Duration::from_secs(10);

const DAY_MS: u64 = 24 * 3_600_000;

/// Days before the end at which the owner is asked.
const COUNTDOWN: [u64; 3] = [14, 7, 1];

/// Askings of one tenant in one minute: what is asked of many at once is told over some minutes.
const ASKED_MAX: usize = 64;

/// For how long a round begins anything more of one tenant: whoever's sources are slow has the less done in a minute.
const TENANT_MAX: Duration = Duration::from_secs(20);

/// Tenants that are looked at at once.
const TENANTS_AT_ONCE: usize = 16;

/// What was asked last of one credential's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Of which version.
    version: u32,
    /// At which step.
    step: Step,
    at: UnixMillis,
}

impl Asked {
    pub(crate) fn at(&self) -> UnixMillis {
        self.at
    }
}

/// Where a credential stands between two rotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Due within so many days.
    DueIn(u64),
    /// It should have been rotated.
    Overdue,
}

impl Step {
    fn is_after(self, other: Self) -> bool {
        match (self, other) {
            (Self::DueIn(days), Self::DueIn(earlier)) => days < earlier,
            (Self::Overdue, Self::DueIn(_)) => true,
            (_, Self::Overdue) => false,
        }
    }
}

/// Where a version stands; none while nobody needs to be asked yet.
fn step(policy: RotationPolicy, stored: UnixMillis, now: UnixMillis) -> Option<Step> {
    let due = policy.due(stored);
    if due <= now {
        return Some(Step::Overdue);
    }
    let left = due.0 - now.0;
    // The whole time between two rotations is no countdown: a daily one is asked for on its day.
    let whole = due.0 - stored.0;
    let reached = COUNTDOWN.iter().rfind(|days| left <= *days * DAY_MS && *days * DAY_MS < whole)?;
    Some(Step::DueIn(*reached))
}

/// Whether to ask now, after what was asked last.
fn is_to_be_asked(step: Step, version: u32, asked: Option<Asked>, now: UnixMillis) -> bool {
    match asked.filter(|asked| asked.version == version) {
        None => true,
        Some(asked) if step == Step::Overdue && asked.step == Step::Overdue => now.0 >= asked.at.0 + DAY_MS,
        Some(asked) => step.is_after(asked.step),
    }
}

impl Executor {
    /// Looks which credentials are due, and does what their policies ask. To be called once a minute. Each round begins
    /// with another tenant, and a tenant whose sources are slow holds up none of the next fifteen.
    pub(crate) async fn carry_out_rotations(self: &Arc<Self>, round: usize) {
        use futures_util::StreamExt as _;
        let mut tenants = self.store.tenants();
        tenants.retain(|tenant| tenant.state == TenantState::Active);
        let first = round % tenants.len().max(1);
        tenants.rotate_left(first);
        let carried_out = |tenant: Arc<TenantRecord>| async move { self.carry_out_of(&tenant.id).await };
        futures_util::stream::iter(tenants).for_each_concurrent(TENANTS_AT_ONCE, carried_out).await;
    }

    async fn carry_out_of(self: &Arc<Self>, tenant: &TenantId) {
        let (began, mut asked) = (Instant::now(), 0);
        for record in self.store.credentials(tenant) {
            asked += usize::from(self.carry_out(&record, UnixMillis::now()).await);
            if asked >= ASKED_MAX || began.elapsed() > TENANT_MAX {
                return;
            }
        }
    }

    /// Whether something was done.
    async fn carry_out(self: &Arc<Self>, record: &CredentialRecord, now: UnixMillis) -> bool {
        let is_over = record.expires.is_some_and(|end| end <= now);
        if record.state != CredentialState::Active || is_over {
            return false;
        }
        let Some(current) = record.versions.iter().rfind(|version| version.state == VersionState::Current) else {
            return false;
        };
        let Some(step) = step(record.terms.rotation, current.created, now) else { return false };
        if !is_to_be_asked(step, current.version, self.uses.asked(&record.tenant, &record.id), now) {
            return false;
        }
        // Noted first: what fails now is tried at the next step, and not every minute.
        self.uses.note_asked(&record.tenant, &record.id, Asked { version: current.version, step, at: now });
        if step == Step::Overdue {
            match self.rotate_at_source_by(&record.tenant, &record.id, &PrincipalLabel::host()).await {
                Ok(Some(_)) => return true,
                Ok(None) if self.is_renewed_by_use(record, current.version).await => return true,
                Ok(None) => {}
                Err(problem) => tracing::warn!(credential = %record.id, %problem, "its source did not rotate it"),
            }
        }
        self.ask(record, current.version, step, now).await;
        true
    }

    /// Whether its source gave another value to be stored when it was asked for what is minted with it, as an issuer
    /// that rotates refresh tokens does. One that is in use is rotated by its use, and is not due.
    async fn is_renewed_by_use(self: &Arc<Self>, record: &CredentialRecord, version: u32) -> bool {
        if !record.kind.renews_itself() {
            return false;
        }
        let Ok(selected) = self.strongbox.select(&record.tenant, &record.id, UnixMillis::now()) else { return false };
        let facts = facts_of_act(&record.tenant, &PrincipalLabel::host());
        // What it comes to is in the store: a value that was renewed is no longer the one that was selected.
        drop(self.mint(&facts, &selected, Times::of(Instant::now() + RENEWAL_MAX)).await);
        let now = self.store.credential(&record.tenant, &record.id);
        now.is_some_and(|now| now.versions.iter().any(|known| known.version > version))
    }

    /// Asks the owner, and records that.
    async fn ask(self: &Arc<Self>, record: &CredentialRecord, version: u32, step: Step, now: UnixMillis) {
        let (due, what) = (record.rotation_due(), told(step));
        let data = json!({
            "credential": record.id, "name": record.name, "owner": record.owner, "version": version,
            "due": due, "days_left": days_left(step), "overdue_days": overdue_days(due, now),
        });
        let to = Addressee::Tenant(record.tenant.clone());
        let told = self.tell(to, Notice::new("credential.rotation_due", data)).await;
        let act = act::within(&record.tenant, PrincipalLabel::host(), ActKind::RotationAsked, record.id.as_str());
        let note = match told {
            Ok(()) => what,
            Err(untold) => format!("{what}; {untold}"),
        };
        if self.record(Act { version: Some(version), note, ..act }).await.is_err() {
            tracing::warn!(credential = %record.id, "that a rotation was asked for could not be recorded");
        }
    }
}

fn told(step: Step) -> String {
    match step {
        Step::DueIn(days) => format!("due within {days} days"),
        Step::Overdue => "overdue".to_owned(),
    }
}

fn days_left(step: Step) -> u64 {
    match step {
        Step::DueIn(days) => days,
        Step::Overdue => 0,
    }
}

fn overdue_days(due: Option<UnixMillis>, now: UnixMillis) -> u64 {
    due.map_or(0, |due| now.0.saturating_sub(due.0) / DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(days: u32) -> RotationPolicy {
        RotationPolicy { every_h: days * 24, sensitive: false }
    }

    fn days(days: u64) -> UnixMillis {
        UnixMillis(days * DAY_MS)
    }

    #[test]
    fn the_countdown_has_its_steps_and_a_short_policy_has_fewer() {
        let at = |now| step(policy(90), UnixMillis(0), now);
        assert_eq!(at(days(75)), None);
        assert_eq!(at(days(76)), Some(Step::DueIn(14)));
        assert_eq!(at(days(83)), Some(Step::DueIn(7)));
        assert_eq!(at(days(89)), Some(Step::DueIn(1)));
        assert_eq!(at(UnixMillis(days(90).0 - 1)), Some(Step::DueIn(1)));
        assert_eq!(at(days(90)), Some(Step::Overdue));
        assert_eq!(step(policy(7), UnixMillis(0), days(1)), None, "a weekly one is not asked for on its first day");
        assert_eq!(step(policy(1), UnixMillis(0), UnixMillis(1)), None);
        assert_eq!(step(policy(1), UnixMillis(0), days(1)), Some(Step::Overdue));
    }

    #[test]
    fn r12_each_step_is_told_once_and_what_is_overdue_once_a_day() {
        let asked = |step, at| Some(Asked { version: 1, step, at });
        let (week, day) = (Step::DueIn(7), Step::DueIn(1));
        assert!(is_to_be_asked(week, 1, None, days(0)));
        assert!(!is_to_be_asked(week, 1, asked(week, days(0)), days(3)));
        assert!(is_to_be_asked(day, 1, asked(week, days(0)), days(0)));
        // A clock or a policy that is turned back and forth asks nobody again.
        assert!(!is_to_be_asked(week, 1, asked(day, days(0)), days(0)));
        assert!(!is_to_be_asked(day, 1, asked(Step::Overdue, days(0)), days(9)));
        assert!(!is_to_be_asked(Step::Overdue, 1, asked(Step::Overdue, days(5)), UnixMillis(days(6).0 - 1)));
        assert!(is_to_be_asked(Step::Overdue, 1, asked(Step::Overdue, days(5)), days(6)));
        assert!(is_to_be_asked(week, 2, asked(Step::Overdue, days(5)), days(5)), "a new version begins anew");
    }
}
