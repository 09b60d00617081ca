//! Maps whose keys are ours: random ids, digests, names that an operator gave. A call asks them some
//! seventy times, and the standard library's hash, which withstands keys that somebody chooses one by one so
//! that they collide, is a seventh of what looking costs it. Not for keys that a caller chooses.

use std::collections::HashMap;

/// Hashes fast, and differently in each map.
pub type IdHasher = foldhash::fast::RandomState;

/// A map by id.
pub type IdMap<K, V> = HashMap<K, V, IdHasher>;
