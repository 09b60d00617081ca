//! Tenants' keys that were opened: to open one takes longer than to open a value with it. A key is kept with the
//! wrapped data key that it came from and is good for that one only, so that what the store has destroyed or wrapped
//! anew is not opened with what is here. Not a second way to a key: whoever asks has read the wrapped one just now.

use std::sync::Arc;

use keybearer_contract::IdMap;
use keybearer_contract::TenantId;
use keybearer_gate::Sealed;
use parking_lot::Mutex;

use crate::seal::SealingKey;

/// The keys that were opened.
#[derive(Default)]
pub(crate) struct TenantKeys(Mutex<IdMap<(TenantId, Use), Opened>>);

/// What a key is for: the context that it is derived by.
pub(crate) type Use = &'static str;

struct Opened {
    wrapped: Sealed,
    key: Arc<SealingKey>,
}

/// Some 300 bytes each. Beyond it all are opened anew, which takes microseconds.
const KEPT_MAX: usize = 4096;

impl TenantKeys {
    /// The key that came from this wrapped data key.
    pub(crate) fn kept(&self, tenant: &TenantId, use_: Use, wrapped: &Sealed) -> Option<Arc<SealingKey>> {
        let kept = self.0.lock();
        kept.get(&(tenant.clone(), use_))
            .filter(|opened| opened.wrapped == *wrapped)
            .map(|opened| Arc::clone(&opened.key))
    }

    pub(crate) fn keep(&self, tenant: &TenantId, use_: Use, wrapped: Sealed, key: &Arc<SealingKey>) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert((tenant.clone(), use_), Opened { wrapped, key: Arc::clone(key) });
    }

    /// Wipes a tenant's keys; how many there were.
    pub(crate) fn forget(&self, tenant: &TenantId) -> u64 {
        let mut kept = self.0.lock();
        let before = kept.len();
        kept.retain(|(of, _), _| of != tenant);
        (before - kept.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_key_is_good_for_the_wrapped_one_that_it_came_from_and_leaves_with_its_tenant() {
        // If this failed, what was destroyed in the store could still be opened.
        let (keys, tenant, other) = (TenantKeys::default(), TenantId::random(), TenantId::random());
        let wrapped = |byte: u8| Sealed(vec![byte; 40].into());
        let key = Arc::new(SealingKey::new(&Secret::take(vec![7; 32])));
        keys.keep(&tenant, "use", wrapped(1), &key);
        keys.keep(&other, "use", wrapped(1), &key);
        assert!(keys.kept(&tenant, "use", &wrapped(1)).is_some());
        assert!(keys.kept(&tenant, "use", &wrapped(2)).is_none() && keys.kept(&tenant, "else", &wrapped(1)).is_none());
        assert_eq!(keys.forget(&tenant), 1);
        assert!(keys.kept(&tenant, "use", &wrapped(1)).is_none() && keys.kept(&other, "use", &wrapped(1)).is_some());
    }
}
