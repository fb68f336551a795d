//! When a run that may go well soon is tried again.

use std::time::Duration;

use rand::RngExt;

/// How often a slot is tried in all.
pub(crate) const MAX_ATTEMPTS: i32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const FURTHER_PAUSE: Duration = Duration::from_secs(60);
/// Of what an error asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long to wait after this attempt, up to a half more than its base, so that jobs that failed
/// together do not come back together. `asked`: what the error asks for. None: it was the last.
pub(crate) fn pause(attempt: i32, asked: Duration) -> Option<Duration> {
    if attempt >= MAX_ATTEMPTS {
        return None;
    }
    let pause = if attempt == 1 { FIRST_PAUSE } else { FURTHER_PAUSE };
    let pause = pause.max(asked.min(LONGEST_PAUSE));
    Some(pause.mul_f64(rand::rng().random_range(1.0..1.5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_heed_the_error_and_end() {
        let within = |attempt, asked, secs: u64| {
            for _ in 0..100 {
                let pause = pause(attempt, Duration::from_secs(asked)).unwrap();
                let base = Duration::from_secs(secs);
                assert!(pause >= base && pause <= base.mul_f64(1.5), "{pause:?}");
            }
        };
        within(1, 0, 10);
        within(2, 0, 60);
        within(1, 30, 30);
        within(1, u64::MAX, 600);
        assert_eq!(pause(3, Duration::ZERO), None);
    }
}
