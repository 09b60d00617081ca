//! How much of one thing a tenant may have going on at once. Not the quotas of calls: those are the gate's.

use std::collections::HashMap;
use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use parking_lot::Mutex;

/// How much of it every tenant has going on.
pub(crate) struct Turns {
    max: usize,
    taken: Mutex<HashMap<TenantId, usize>>,
}

/// One of them, until it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    tenant: TenantId,
}

impl Turns {
    /// At most so many at once for each tenant.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Takes one of the tenant's.
    ///
    /// # Errors
    /// [`Code::RateLimited`] if it has none left; `hint` says what to wait for.
    pub(crate) fn take(self: &Arc<Self>, tenant: &TenantId, hint: &str) -> Result<Turn, Problem> {
        let mut taken = self.taken.lock();
        let of_it = taken.entry(tenant.clone()).or_default();
        if *of_it >= self.max {
            let mut problem = Problem::new(Code::RateLimited, hint);
            problem.retry_after_s = Some(5);
            return Err(problem);
        }
        *of_it += 1;
        Ok(Turn { turns: Arc::clone(self), tenant: tenant.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock();
        if let Some(of_it) = taken.get_mut(&self.tenant) {
            *of_it -= 1;
            if *of_it == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_a_tenant_has_so_many_at_once_and_no_other_tenant_has_fewer_for_it() {
        let (turns, mine, other) = (Turns::new(2), TenantId::random(), TenantId::random());
        let first = turns.take(&mine, "wait").expect("the first");
        let second = turns.take(&mine, "wait").expect("the second");
        assert_eq!(turns.take(&mine, "wait").err().map(|problem| problem.code), Some(Code::RateLimited));
        assert!(turns.take(&other, "wait").is_ok());
        drop(first);
        assert!(turns.take(&mine, "wait").is_ok());
        drop(second);
        assert!(turns.taken.lock().is_empty(), "nothing is kept of whoever has none");
    }
}
