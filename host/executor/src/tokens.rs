//! API tokens of a tenant: issued with no scope that the issuer lacks, shown once, revoked at once.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::TokenRecord;
use keybearer_ledger::ActKind;
use zeroize::Zeroizing;

use crate::Executor;
use crate::NewToken;
use crate::TokenView;
use crate::act;
use crate::onboarding::onboarding_of;
use crate::rows::one_more;

/// The longest life of a token: a year.
const LIFE_S_MAX: u64 = 366 * 24 * 3600;

impl Executor {
    /// Issues a token with at most the scopes and packages of the issuer.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for a scope or package that the issuer lacks; [`Code::TooMany`].
    pub async fn issue_token(
        &self,
        context: &TenantContext,
        new: NewToken,
    ) -> Result<(TokenView, Zeroizing<String>), Problem> {
        context.require(Scope::Tokens)?;
        let within = match &new.packages {
            Some(packages) => packages.iter().all(|package| context.may_see(package)),
            None => context.sees_every_package(),
        };
        if !context.scopes().covers(&new.scopes) || !within {
            return Err(Problem::new(Code::Forbidden, "a token cannot have more scopes or packages than its issuer's"));
        }
        self.issue(context.tenant(), context.principal().clone(), new).await
    }

    /// The tenant's tokens, revoked and expired ones too.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn tokens(&self, context: &TenantContext) -> Result<Vec<TokenView>, Problem> {
        context.require(Scope::Tokens)?;
        Ok(self.store.tokens(context.tenant()).iter().map(|record| view(record)).collect())
    }

    pub(crate) async fn issue(
        &self,
        tenant: &TenantId,
        issuer: PrincipalLabel,
        new: NewToken,
    ) -> Result<(TokenView, Zeroizing<String>), Problem> {
        if new.life_s == 0 || new.life_s > LIFE_S_MAX {
            return Err(Problem::new(Code::MalformedRequest, "`life_s` is 1 second to 366 days: every token ends"));
        }
        if new.label.trim().is_empty() || new.label.len() > 200 || new.label.chars().any(char::is_control) {
            return Err(Problem::new(Code::MalformedRequest, "`label` is 1 to 200 bytes of plain text"));
        }
        if self.store.is_principal_revoked(tenant, &new.label) {
            return Err(Problem::new(Code::Conflict, "a principal of this label was revoked: restore it first"));
        }
        let onboarding = onboarding_of(new.owner, new.justification, &issuer)?;
        let now = UnixMillis::now();
        let life = now..UnixMillis(now.0 + new.life_s * 1000);
        let mut issued = keybearer_gate::issue_token(tenant.clone(), new.label, new.scopes, new.packages, life);
        issued.record.onboarding = onboarding;
        let turn = self.rows.turn().await;
        self.make_room_for_a_token(tenant, now).await?;
        let (store, record) = (Arc::clone(&self.store), issued.record.clone());
        crate::blocking(move || store.insert_token(record)).await?;
        drop(turn);
        self.record(act::within(tenant, issuer, ActKind::TokenIssued, issued.record.id.as_str())).await?;
        Ok((view(&issued.record), issued.text))
    }

    /// Where there are as many as there may be, those that are revoked or expired are forgotten: whoever presents
    /// one is refused as before, and the ledger has their lives.
    async fn make_room_for_a_token(&self, tenant: &TenantId, now: UnixMillis) -> Result<(), Problem> {
        let max = self.rows.ceilings.tokens;
        let mut has = self.store.tokens(tenant).len();
        if has >= max as usize {
            let (store, tenant) = (Arc::clone(&self.store), tenant.clone());
            has -= crate::blocking(move || store.forget_dead_tokens(&tenant, now)).await?;
        }
        one_more("tokens", has, max, "revoke one that is not needed")
    }
}

fn view(record: &TokenRecord) -> TokenView {
    TokenView {
        id: record.id.clone(),
        label: record.label.clone(),
        scopes: record.scopes.clone(),
        packages: record.packages.clone(),
        issued: record.issued,
        expires: record.expires,
        revoked: record.revoked,
        owner: record.onboarding.owner.clone(),
        justification: record.onboarding.justification.clone(),
    }
}
