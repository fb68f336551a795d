//! What rates are worth: intervals, and whether one is really lower than another.

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::read::Counts;

/// Of the interval that goes with a rate: 95 %.
const Z95: f64 = 1.959_963_985;

/// Per cent of sessions that did not crash; none without sessions.
pub(crate) fn crash_free(total: i64, crashed: i64) -> Option<f64> {
    (total > 0).then(|| ((total - crashed) as f64 / total as f64 * 100.0).clamp(0.0, 100.0))
}

/// Where the true rate lies in 95 of 100 cases, in per cent: the score interval of Wilson (1927).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AppSessionInterval)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

pub(crate) fn wilson(total: i64, crashed: i64) -> Option<Interval> {
    if total <= 0 {
        return None;
    }
    let (n, p) = (total as f64, (total - crashed) as f64 / total as f64);
    let z2 = Z95 * Z95;
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Interval {
        low: ((middle - half) * 100.0).max(0.0),
        high: ((middle + half) * 100.0).min(100.0),
    })
}

/// How sure it is that a release crashes more often than another, in per cent: one-sided test of two
/// proportions with pooled variance. None where one has no sessions, or there are too few for the test
/// to mean anything (less than five crashes or five sessions without, expected in either).
pub(crate) fn confidence_worse(now: &Counts, before: &Counts) -> Option<f64> {
    let (n1, n0) = (now.total() as f64, before.total() as f64);
    if n1 <= 0.0 || n0 <= 0.0 {
        return None;
    }
    let (c1, c0) = (now.crashed as f64, before.crashed as f64);
    let pooled = (c1 + c0) / (n1 + n0);
    let smallest = n1.min(n0);
    if smallest * pooled < 5.0 || smallest * (1.0 - pooled) < 5.0 {
        return None;
    }
    let z = (c1 / n1 - c0 / n0) / (pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n0)).sqrt();
    Some(normal(z) * 100.0)
}

/// The distribution function of the normal distribution: Abramowitz and Stegun 7.1.26 (error 1.5e-7).
fn normal(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = series.iter().fold(0.0, |sum, part| (sum + part) * t);
    let erf = 1.0 - sum * (-x * x).exp();
    if z >= 0.0 { f64::midpoint(1.0, erf) } else { f64::midpoint(1.0, -erf) }
}

#[cfg(test)]
mod tests {
    use super::{confidence_worse, crash_free, normal, wilson};
    use crate::store::read::Counts;

    fn counts(healthy: i64, crashed: i64) -> Counts {
        Counts { healthy, crashed, ..Counts::default() }
    }

    #[test]
    fn without_sessions_there_is_no_rate() {
        assert_eq!(crash_free(0, 0), None);
        assert_eq!(wilson(0, 0), None);
        assert_eq!(crash_free(200, 1), Some(99.5));
    }

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        // Newcombe (1998), table I: 81 of 263 is 0.2553 to 0.3662.
        let interval = wilson(263, 263 - 81).unwrap();
        assert!((interval.low - 25.53).abs() < 0.01, "{interval:?}");
        assert!((interval.high - 36.62).abs() < 0.01, "{interval:?}");
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (z, p) in [(0.0, 0.5), (1.644_854, 0.95), (-1.959_964, 0.025), (2.326_348, 0.99)] {
            assert!((normal(z) - p).abs() < 1e-6, "{z}: {}", normal(z));
        }
    }

    #[test]
    fn small_numbers_do_not_cry_wolf() {
        assert_eq!(confidence_worse(&counts(9, 1), &counts(100, 0)), None);
        assert_eq!(confidence_worse(&counts(0, 0), &counts(100, 50)), None);
        let unsure = confidence_worse(&counts(985, 15), &counts(990, 10)).unwrap();
        assert!((50.0..95.0).contains(&unsure), "{unsure}");
        let sure = confidence_worse(&counts(9500, 500), &counts(9900, 100)).unwrap();
        assert!(sure > 99.9, "{sure}");
        let better = confidence_worse(&counts(9900, 100), &counts(9500, 500)).unwrap();
        assert!(better < 0.1, "{better}");
    }
}
