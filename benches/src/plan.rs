//! How much is measured: slices, their lengths, concurrencies. Not what.

use std::time::Duration;

/// How much is measured.
pub(crate) struct Plan {
    /// Slices of each side, alternating; medians are over these.
    pub(crate) slices: usize,
    /// How long a slice is, the warm-up before it not counted.
    pub(crate) slice: Duration,
    /// Load before a slice counts: connections are made, caches and pools are warm.
    pub(crate) warm_up: Duration,
    /// Connections of the load generator, each with one request under way.
    pub(crate) concurrency: &'static [usize],
}

impl Plan {
    /// Six to eight minutes.
    pub(crate) fn full() -> Self {
        Self {
            slices: 9,
            slice: Duration::from_millis(1000),
            warm_up: Duration::from_millis(200),
            concurrency: &[1, 16, 64],
        }
    }

    /// Less than two minutes.
    pub(crate) fn quick() -> Self {
        Self {
            slices: 5,
            slice: Duration::from_millis(400),
            warm_up: Duration::from_millis(100),
            concurrency: &[1, 16, 64],
        }
    }
}
