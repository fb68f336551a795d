//! How many different users: exact while they are few, then a HyperLogLog sketch (4,096 registers, about
//! 1.6 % off). Sketches can be merged.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

const EXACT: u8 = 1;
const SKETCH: u8 = 2;
/// Hashes kept as they are: 2 KiB of them.
const FEW: usize = 256;
const BITS: u32 = 12;
const REGISTERS: usize = 1 << BITS;

/// A user's place in a sketch.
pub(crate) fn hash(user: &str) -> u64 {
    let digest = Sha256::digest(user.as_bytes());
    digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    Few(BTreeSet<u64>),
    Many(Vec<u8>),
}

impl Default for Users {
    fn default() -> Self {
        Self::Few(BTreeSet::new())
    }
}

impl Users {
    /// What is not as it should be is nobody.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        match bytes.split_first() {
            Some((&EXACT, hashes)) => {
                let hashes = hashes.as_chunks::<8>().0;
                Self::Few(hashes.iter().map(|hash| u64::from_be_bytes(*hash)).collect())
            }
            Some((&SKETCH, registers)) if registers.len() == REGISTERS => {
                Self::Many(registers.to_vec())
            }
            _ => Self::default(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Few(hashes) => std::iter::once(EXACT)
                .chain(hashes.iter().flat_map(|hash| hash.to_be_bytes()))
                .collect(),
            Self::Many(registers) => {
                std::iter::once(SKETCH).chain(registers.iter().copied()).collect()
            }
        }
    }

    /// True: it has changed.
    pub(crate) fn add(&mut self, hash: u64) -> bool {
        match self {
            Self::Few(hashes) => {
                let changed = hashes.insert(hash);
                if hashes.len() > FEW {
                    let mut registers = vec![0; REGISTERS];
                    for hash in hashes.iter() {
                        note(&mut registers, *hash);
                    }
                    *self = Self::Many(registers);
                }
                changed
            }
            Self::Many(registers) => note(registers, hash),
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        match other {
            Self::Few(hashes) => {
                for hash in hashes {
                    self.add(*hash);
                }
            }
            Self::Many(theirs) => {
                let mut merged = theirs.clone();
                match &*self {
                    Self::Few(hashes) => {
                        for hash in hashes {
                            note(&mut merged, *hash);
                        }
                    }
                    Self::Many(ours) => {
                        for (merged, ours) in merged.iter_mut().zip(ours) {
                            *merged = (*merged).max(*ours);
                        }
                    }
                }
                *self = Self::Many(merged);
            }
        }
    }

    pub(crate) fn count(&self) -> i64 {
        match self {
            Self::Few(hashes) => i64::try_from(hashes.len()).unwrap_or(i64::MAX),
            Self::Many(registers) => estimate(registers),
        }
    }
}

/// Raises the register of a hash to how many zeros the rest of it begins with, and one.
fn note(registers: &mut [u8], hash: u64) -> bool {
    let index = usize::try_from(hash >> (64 - BITS)).unwrap_or_default();
    let zeros = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() + 1;
    let zeros = u8::try_from(zeros).unwrap_or(u8::MAX);
    match registers.get_mut(index) {
        Some(register) if *register < zeros => {
            *register = zeros;
            true
        }
        _ => false,
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
fn estimate(registers: &[u8]) -> i64 {
    let m = REGISTERS as f64;
    let sum: f64 = registers.iter().map(|register| (-f64::from(*register)).exp2()).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    let empty = registers.iter().filter(|register| **register == 0).count();
    let estimate = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
    estimate.round() as i64
}

#[cfg(test)]
mod tests {
    use super::{Users, hash};

    fn of(range: std::ops::Range<u32>) -> Users {
        let mut users = Users::default();
        for n in range {
            users.add(hash(&format!("user-{n}")));
        }
        users
    }

    #[test]
    fn few_users_are_counted_exactly_and_many_nearly() {
        for count in [0, 1, 2, 256] {
            assert_eq!(of(0..count).count(), i64::from(count));
        }
        for count in [257, 1_000, 10_000, 100_000] {
            let found = of(0..count).count();
            let off = (found - i64::from(count)).abs();
            assert!(off * 20 <= i64::from(count), "{found} of {count}");
        }
    }

    #[test]
    fn a_merged_sketch_is_that_of_all() {
        for (a, b) in [(0..100, 50..120), (0..100, 0..5000), (0..3000, 2000..6000)] {
            let mut merged = of(a.clone());
            merged.merge(&of(b.clone()));
            assert_eq!(merged.count(), of(a.start..b.end).count());
        }
    }

    #[test]
    fn a_sketch_comes_back_from_its_bytes() {
        for users in [of(0..0), of(0..7), of(0..5000)] {
            assert_eq!(Users::from_bytes(&users.to_bytes()), users);
        }
        assert_eq!(Users::from_bytes(b"").count(), 0);
        assert_eq!(Users::from_bytes(&[2, 0]).count(), 0);
    }
}
