//! Tenants' keys that were opened: to open one takes longer than to open a value with it. A key is kept with the
//! wrapped data key that it came from and is good for that one only, so that what the store has destroyed or wrapped
//! anew is not opened with what is here. Not a second way to a key: whoever asks has read the wrapped one just now.

use std::collections::HashMap;
use std::sync::Arc;

use keybearer_contract::TenantId;
use keybearer_gate::Sealed;
use parking_lot::Mutex;

use crate::seal::SealingKey;

/// The keys that were opened.
#[derive(Default)]
pub(crate) struct TenantKeys(Mutex<HashMap<(TenantId, Use), Opened>>);

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
