//! Discovery as onboarding: the metadata of an issuer that a recipe names is fetched once, looked at, and frozen in the
//! recipe. The request carries no credential, and is recorded like every other one.

use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::Delivery;
use keybearer_contract::Problem;
use keybearer_egress::SendLimits;
use keybearer_gate::Discovered;
use keybearer_gate::Exchange;
use keybearer_gate::OauthDiscovery;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::clear_discovery;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Fault;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Purpose;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Told;
use tokio::time::Instant;

use crate::Executor;
use crate::renewal;

/// Two requests, each of which an issuer answers in well under a second.
const DISCOVER_MAX: Duration = Duration::from_secs(10);

/// Metadata is a few KiB (the strongbox reads no more than 64 KiB of an answer).
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Issuers that are asked at once for one tenant's new credentials: people onboard one after the other, and whoever has
/// stolen a token is no quick scanner by it.
pub(crate) const ISSUERS_AT_ONCE: usize = 4;

/// What a fifth one is told.
pub(crate) const ISSUERS_BUSY: &str = "issuers are asked for other credentials of the tenant: wait for them";

impl Executor {
    /// Finds the endpoints of a recipe that names its issuer instead, for a credential of this name.
    ///
    /// # Errors
    /// [`Code::Conflict`] for a name that is taken, before anybody is asked; [`Code::RateLimited`] while issuers are asked
    /// for others of the tenant; [`Code::CredentialRefused`] for metadata of another issuer, or with endpoints where none may be;
    /// [`Code::UpstreamFailed`] if there is no metadata to be had.
    pub async fn discover(
        &self,
        context: &TenantContext,
        name: &str,
        asked: &OauthDiscovery,
    ) -> Result<Discovered, Problem> {
        context.require(Scope::Credentials)?;
        let known = self.store.credential_by_name(context.tenant(), name);
        if known.is_some_and(|known| !keybearer_strongbox::waits(known.state)) {
            return Err(Problem::new(Code::Conflict, "a credential of this name exists"));
        }
        let _turn = self.issuers.take(context.tenant(), ISSUERS_BUSY)?;
        let _running = self.running()?;
        let deadline = Instant::now() + DISCOVER_MAX;
        for exchange in asked.exchanges() {
            match self.metadata(context, exchange, deadline).await? {
                Ok(told) => {
                    let found = asked.recipe(|name| told.get(name));
                    return found.map_err(|refused| Problem::new(Code::CredentialRefused, refused.to_string()));
                }
                // Not there, so at the other place.
                Err(AnswerRefused::Status { status: 400..=499, .. }) => {}
                Err(_) => return Err(unavailable()),
            }
        }
        Err(unavailable())
    }

    async fn metadata(
        &self,
        context: &TenantContext,
        exchange: Exchange,
        deadline: Instant,
    ) -> Result<Result<Told, AnswerRefused>, Problem> {
        let shape = exchange.answer.clone();
        let facts = renewal::facts_of_act(context.tenant(), context.principal());
        let cleared = clear_discovery(&facts, exchange).map_err(|_| unavailable())?;
        let vetted = self.egress.vet(cleared.destination(), deadline).await.map_err(|_| unavailable())?;
        let (address, purpose) = (vetted.address(), Purpose::Discover);
        let withheld = &keybearer_gate::NothingWithheld;
        let details = IntentDetails { version: None, epoch: None, address, purpose, svid: None, withheld };
        let started = Instant::now();
        let (intent, entry) = self.ledger.intend(&cleared, details).await.map_err(crate::ledger_problem)?;
        let Ok(armed) = keybearer_strongbox::plain(cleared, intent) else {
            entry
                .close(DispatchOutcome::failed(Fault::Host, Delivery::NotSent))
                .await
                .map_err(crate::ledger_problem)?;
            return Err(unavailable());
        };
        let limits = SendLimits { deadline, response_bytes: ANSWER_BYTES_MAX };
        let answered = self.egress.send(armed, vetted, limits).await;
        let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = match &answered {
            Ok(raw) => DispatchOutcome { wall_ms, ..DispatchOutcome::answered(raw.status()) },
            Err(fault) => {
                let recorded = DispatchOutcome::failed(crate::dispatch::recorded(fault.reason), fault.delivery);
                DispatchOutcome { wall_ms, ..recorded }
            }
        };
        entry.close(outcome).await.map_err(crate::ledger_problem)?;
        let raw = answered.map_err(|_| unavailable())?;
        Ok(keybearer_strongbox::read_facts(raw, &shape))
    }
}

/// For every reason one sentence: what is inside is not told apart from what is away.
fn unavailable() -> Problem {
    Problem::new(
        Code::UpstreamFailed,
        "the issuer's metadata is not to be had: name the endpoints in the recipe instead",
    )
}
