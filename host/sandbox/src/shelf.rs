//! The tools that are loaded, by their package's digest: a bounded number; the one that was not used for
//! longest goes first. Calls that hold it go on.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use keybearer_contract::Digest;
use keybearer_contract::IdMap;
use parking_lot::RwLock;

use crate::tool::Tool;

/// Some megabytes of code each.
const TOOLS_MAX: usize = 512;

#[derive(Default)]
pub(crate) struct Shelf {
    tools: RwLock<IdMap<Digest, Place>>,
    /// Counts uses; the shelf's own clock.
    uses: AtomicU64,
}

struct Place {
    tool: Arc<Tool>,
    used: AtomicU64,
}

impl Shelf {
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Tool>> {
        let tools = self.tools.read();
        let place = tools.get(digest)?;
        place.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(&place.tool))
    }

    /// Puts a tool on the shelf; gives back the one that stands there, if somebody was faster.
    pub(crate) fn put(&self, tool: Arc<Tool>) -> Arc<Tool> {
        let used = AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed));
        let mut tools = self.tools.write();
        let digest = *tool.digest();
        let standing = Arc::clone(&tools.entry(digest).or_insert(Place { tool, used }).tool);
        if tools.len() > TOOLS_MAX {
            let oldest = tools.iter().min_by_key(|(_, place)| place.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                tools.remove(&oldest);
            }
        }
        standing
    }
}
