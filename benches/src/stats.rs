//! Medians, quantiles, and what one slice of load came to. Nothing is averaged: one hiccup of a shared
//! machine must not decide a number.

use serde::Serialize;

/// What one slice came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Slice {
    /// Calls that were answered within it.
    pub(crate) calls: u64,
    /// How long it was, seconds.
    pub(crate) seconds: f64,
    /// Half of the calls took no longer, microseconds.
    pub(crate) p50_us: f64,
    /// 99 of 100 calls took no longer, microseconds.
    pub(crate) p99_us: f64,
    /// What the server used of a processor for each call, microseconds.
    pub(crate) cpu_us: f64,
    /// The server's resident memory at the end, MiB.
    pub(crate) rss_mib: f64,
}

impl Slice {
    pub(crate) fn per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }
}

/// The slices of both sides of one comparison; the nth of one stood next to the nth of the other.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Slices {
    pub(crate) ours: Vec<Slice>,
    pub(crate) floor: Vec<Slice>,
}

/// The median; 0 of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// A quantile of sorted values, by the nearest rank; 0 of nothing.
pub(crate) fn quantile(sorted: &[f64], at: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within a slice's length")]
    let rank = (sorted.len() as f64 * at).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// The median of the ratios of neighbouring slices: what is common to both of a pair cancels out.
pub(crate) fn paired_ratio(ours: &[f64], floor: &[f64]) -> f64 {
    median(ours.iter().zip(floor).filter(|(_, floor)| **floor > 0.0).map(|(ours, floor)| ours / floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_a_value_that_was_measured() {
        assert_eq!(median([9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median([4.0, 1.0]), 1.0);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.99), 99.0);
        assert_eq!(quantile(&sorted, 0.5), 50.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn a_ratio_is_taken_within_pairs_so_that_a_slow_minute_cancels_out() {
        let ours = [50.0, 5.0, 50.0];
        let floor = [100.0, 10.0, 100.0];
        assert_eq!(paired_ratio(&ours, &floor), 0.5);
    }
}
