//! Durations in a logarithmic histogram: a quantile out of it is within two per cent, and histograms of
//! any times and releases add up.

/// The upper bound of a bucket by that of the one before.
const GROWTH: f64 = 1.04;
/// Of durations without an end worth telling: about 20 years.
const LAST: f64 = 700.0;

/// The bucket of a duration in milliseconds; 0 is nothing at all.
pub(crate) fn bucket(ms: i64) -> i16 {
    if ms <= 0 {
        return 0;
    }
    let place = ((ms as f64).ln() / GROWTH.ln()).ceil().clamp(0.0, LAST);
    // Within the bounds of an i16 by what stands above.
    place as i16 + 1
}

/// What stands for the durations of a bucket, in milliseconds.
pub(crate) fn middle(bucket: i16) -> f64 {
    if bucket <= 0 {
        return 0.0;
    }
    2.0 * GROWTH.powi(i32::from(bucket) - 1) / (1.0 + GROWTH)
}

/// A quantile of a histogram, buckets in ascending order.
pub(crate) fn quantile(histogram: impl Iterator<Item = (i16, f64)> + Clone, q: f64) -> Option<f64> {
    let total: f64 = histogram.clone().map(|(_, count)| count).sum();
    if total <= 0.0 {
        return None;
    }
    let rank = q * (total - 1.0).max(0.0);
    let mut seen = 0.0;
    let mut last = None;
    for (bucket, count) in histogram {
        seen += count;
        last = Some(middle(bucket));
        if seen > rank {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::{bucket, quantile};
    use std::collections::BTreeMap;

    #[test]
    fn quantiles_are_within_two_per_cent() {
        for scale in [1.0, 37.0, 12_345.0, 9e6] {
            let all: Vec<i64> = (1..=1000).map(|n| (f64::from(n) * scale) as i64).collect();
            let mut histogram = BTreeMap::new();
            for ms in &all {
                *histogram.entry(bucket(*ms)).or_insert(0.0) += 1.0;
            }
            for (q, at) in [(0.5, 499), (0.95, 949), (0.99, 989)] {
                let told = quantile(histogram.iter().map(|(b, n)| (*b, *n)), q).unwrap();
                let truth = all[at] as f64;
                assert!(
                    (told - truth).abs() <= truth * 0.021 + 1.0,
                    "{q} of {scale}: {told} for {truth}"
                );
            }
        }
    }

    #[test]
    fn nothing_and_for_ever_have_a_bucket() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(-5), 0);
        assert!(bucket(1) > 0);
        assert!(bucket(i64::MAX) >= bucket(1 << 40));
        assert_eq!(quantile(std::iter::empty(), 0.5), None);
    }
}
