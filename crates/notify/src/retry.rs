//! When what could not be delivered is tried again.

use std::time::Duration;

use rand::RngExt;

use crate::Channel;

const SECOND: Duration = Duration::from_secs(1);
/// Over about an hour: greylisting lets in what comes again, and a sign-in link is soon stale.
const MAIL: &[Duration] = &[SECOND.saturating_mul(30), minutes(3), minutes(12), minutes(40)];
/// Over about a day: whoever receives may be down for a night.
const WEBHOOK: &[Duration] = &[
    SECOND.saturating_mul(5),
    minutes(5),
    minutes(30),
    minutes(60),
    minutes(180),
    minutes(360),
    minutes(720),
];
/// Of what the other side asks for.
const LONGEST_ASKED: Duration = minutes(360);

const fn minutes(n: u32) -> Duration {
    SECOND.saturating_mul(60 * n)
}

fn pauses(channel: Channel) -> &'static [Duration] {
    match channel {
        Channel::Mail => MAIL,
        Channel::Webhook => WEBHOOK,
    }
}

/// How often it is tried in all.
pub(crate) fn max_attempts(channel: Channel) -> i32 {
    i32::try_from(pauses(channel).len()).unwrap_or_default() + 1
}

/// How long to wait after this attempt (from 1), up to a fifth more than its base, so that what failed
/// together does not come back together. `asked`: what the other side asks for. None: it was the last.
pub(crate) fn pause(channel: Channel, attempt: i32, asked: Duration) -> Option<Duration> {
    let index = usize::try_from(attempt.saturating_sub(1)).ok()?;
    let pause = *pauses(channel).get(index)?;
    let pause = pause.max(asked.min(LONGEST_ASKED));
    Some(pause.mul_f64(rand::rng().random_range(1.0..1.2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_is_tried_for_an_hour_and_a_webhook_for_a_day() {
        for (channel, attempts, hours) in
            [(Channel::Mail, 5, 0.9..1.3), (Channel::Webhook, 8, 22.0..28.0)]
        {
            assert_eq!(max_attempts(channel), attempts);
            let all: Vec<_> = (1..attempts).map(|n| pause(channel, n, Duration::ZERO)).collect();
            let total: Duration = all.iter().map(|pause| pause.unwrap()).sum();
            assert!(hours.contains(&(total.as_secs_f64() / 3600.0)), "{total:?}");
            assert!(all.is_sorted(), "{all:?}");
            assert_eq!(pause(channel, attempts, Duration::ZERO), None);
        }
    }

    #[test]
    fn what_the_other_side_asks_for_is_heeded_within_bounds() {
        let pause = |secs| pause(Channel::Webhook, 1, Duration::from_secs(secs)).unwrap();
        assert!((120..145).contains(&pause(120).as_secs()));
        assert!(pause(u64::MAX) < LONGEST_ASKED * 2);
        assert!(pause(0) >= Duration::from_secs(5));
    }
}
