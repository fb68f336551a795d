//! Chance that is the same each time; only ids are not, so that several organisations can have the data.

use chrono::{DateTime, Utc};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use uuid::{Builder, Uuid};

pub(crate) struct Chance(StdRng, [u8; 10]);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed), rand::random())
    }

    /// From 0 to 1.
    pub(crate) fn part(&mut self) -> f64 {
        self.0.random()
    }

    pub(crate) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.part()
    }

    /// From `from` up to and with `to`.
    pub(crate) fn number(&mut self, from: i64, to: i64) -> i64 {
        self.0.random_range(from..=to)
    }

    pub(crate) fn holds(&mut self, probability: f64) -> bool {
        self.part() < probability
    }

    /// One of them.
    pub(crate) fn one<T: Copy + Default>(&mut self, of: &[T]) -> T {
        let at = self.0.random_range(0..of.len().max(1));
        of.get(at).copied().unwrap_or_default()
    }

    /// Most often near `middle`, sometimes many times that: what takes time does so.
    pub(crate) fn skewed(&mut self, middle: f64, spread: f64) -> f64 {
        let sum: f64 = (0..6).map(|_| self.part()).sum::<f64>() - 3.0;
        middle * (sum * spread * std::f64::consts::SQRT_2).exp()
    }

    /// A UUIDv7 of that time.
    pub(crate) fn id(&mut self, at: DateTime<Utc>) -> Uuid {
        let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
        let mut random: [u8; 10] = self.0.random();
        for (byte, own) in random.iter_mut().zip(self.1) {
            *byte ^= own;
        }
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    pub(crate) fn hex(&mut self, digits: usize) -> String {
        (0..digits)
            .map(|_| char::from_digit(self.0.random_range(0..16), 16).unwrap_or('0'))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_same_each_time_and_ids_are_not() {
        let (mut one, mut other) = (Chance::new(7), Chance::new(7));
        let at = DateTime::UNIX_EPOCH;
        assert_ne!(one.id(at), other.id(at));
        assert_eq!(one.number(0, i64::MAX), other.number(0, i64::MAX));
    }
}
