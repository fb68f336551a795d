//! Sets of users that can be united: exact while small, then a HyperLogLog sketch of 2^14 registers
//! (standard error 0.8 %). Digests go in, never who somebody is.

use loom_common_secret::SecretString;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// So many are listed one by one; as large as a sketch from there on.
const LISTED: usize = 1500;

const LIST: u8 = 1;
const SKETCH: u8 = 2;

/// The digest of a user in a project. With the salt of this installation, so that it cannot be found by
/// trying addresses.
pub(crate) fn hash(salt: &SecretString, project: Uuid, distinct_id: &str) -> i64 {
    let mut digest = Sha256::new();
    digest.update(salt.expose().as_bytes());
    digest.update(project.as_bytes());
    digest.update(distinct_id.as_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Users, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    /// Sorted, unless `dirty`.
    Listed(Vec<i64>),
    Sketch(Vec<u8>),
}

impl Default for Users {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Users {
    /// What was written by [`Users::to_bytes`]; of anything else nobody.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        match bytes.split_first() {
            Some((&LIST, rest)) => {
                let (chunks, _) = rest.as_chunks::<8>();
                Self::Listed(chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect())
            }
            Some((&SKETCH, rest)) if rest.len() == REGISTERS => Self::Sketch(rest.to_vec()),
            _ => Self::default(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Listed(listed) => {
                let mut bytes = vec![LIST];
                bytes.extend(listed.iter().flat_map(|hash| hash.to_le_bytes()));
                bytes
            }
            Self::Sketch(registers) => {
                let mut bytes = vec![SKETCH];
                bytes.extend_from_slice(registers);
                bytes
            }
        }
    }

    /// Of single digests; listed whatever their number.
    pub(crate) fn exact(mut hashes: Vec<i64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self::Listed(hashes)
    }

    /// Unites with another set. Lists stay lists: see [`Users::compact`].
    pub(crate) fn unite(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Listed(mine), Self::Listed(theirs)) => {
                if theirs.is_empty() {
                    return;
                }
                mine.extend_from_slice(theirs);
                mine.sort_unstable();
                mine.dedup();
            }
            (Self::Sketch(registers), Self::Listed(theirs)) => {
                for hash in theirs {
                    note(registers, *hash);
                }
            }
            (Self::Sketch(registers), Self::Sketch(theirs)) => {
                for (mine, theirs) in registers.iter_mut().zip(theirs) {
                    *mine = (*mine).max(*theirs);
                }
            }
            (Self::Listed(mine), Self::Sketch(theirs)) => {
                let mut registers = theirs.clone();
                for hash in mine.iter() {
                    note(&mut registers, *hash);
                }
                *self = Self::Sketch(registers);
            }
        }
    }

    /// Becomes a sketch when there are many.
    #[must_use]
    pub(crate) fn compact(self) -> Self {
        match self {
            Self::Listed(listed) if listed.len() > LISTED => {
                let mut registers = vec![0; REGISTERS];
                for hash in listed {
                    note(&mut registers, hash);
                }
                Self::Sketch(registers)
            }
            small_or_sketch => small_or_sketch,
        }
    }

    pub(crate) fn count(&self) -> i64 {
        match self {
            Self::Listed(listed) => i64::try_from(listed.len()).unwrap_or(i64::MAX),
            Self::Sketch(registers) => estimate(registers),
        }
    }

    pub(crate) fn is_exact(&self) -> bool {
        matches!(self, Self::Listed(_))
    }
}

fn note(registers: &mut [u8], hash: i64) {
    // Digests are evenly spread as they are.
    let hash = hash.cast_unsigned();
    let place = usize::try_from(hash >> (64 - PRECISION)).unwrap_or_default();
    let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() + 1;
    if let Some(register) = registers.get_mut(place) {
        *register = (*register).max(u8::try_from(rank).unwrap_or(u8::MAX));
    }
}

/// Ertl's estimator of "New cardinality estimation algorithms for HyperLogLog sketches" (2017), which is
/// good over the whole range without tables.
fn estimate(registers: &[u8]) -> i64 {
    const BITS: usize = 64 - PRECISION as usize;
    let mut histogram = [0.0_f64; BITS + 2];
    for register in registers {
        if let Some(count) = histogram.get_mut(usize::from(*register)) {
            *count += 1.0;
        }
    }
    let m = REGISTERS as f64;
    let first = histogram.first().copied().unwrap_or_default();
    let last = histogram.last().copied().unwrap_or_default();
    let mut z = m * tau(1.0 - last / m);
    for count in histogram.iter().take(BITS + 1).skip(1).rev() {
        z = 0.5 * (z + count);
    }
    z += m * sigma(first / m);
    let estimate = m * m / (2.0 * std::f64::consts::LN_2 * z);
    // Far below what an i64 holds.
    if estimate.is_finite() { estimate.round() as i64 } else { 0 }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{REGISTERS, Users, hash};
    use loom_common_secret::SecretString;
    use uuid::Uuid;

    fn users(range: std::ops::Range<usize>) -> Vec<i64> {
        let salt = SecretString::from("salt");
        range.map(|n| hash(&salt, Uuid::nil(), &n.to_string())).collect()
    }

    #[test]
    fn a_sketch_is_within_two_per_cent_at_10_10k_and_a_million() {
        for truth in [10_usize, 1000, 10_000, 30_000, 100_000, 1_000_000] {
            let mut sketch = Users::Sketch(vec![0; REGISTERS]);
            sketch.unite(&Users::Listed(users(0..truth)));
            let told = sketch.count() as f64;
            let error = (told - truth as f64).abs() / truth as f64;
            assert!(error <= 0.02, "{told} for {truth}");
        }
    }

    #[test]
    fn unions_are_the_same_in_any_order_and_however_often() {
        let parts: Vec<Users> = [0..700, 500..2500, 2000..9000]
            .into_iter()
            .map(|range| Users::exact(users(range)).compact())
            .collect();
        let mut forward = Users::default();
        let mut backward = Users::default();
        for part in &parts {
            forward.unite(part);
            forward.unite(part);
            forward = forward.compact();
        }
        for part in parts.iter().rev() {
            backward.unite(part);
            backward = backward.compact();
        }
        assert_eq!(forward, backward);
        assert_eq!(Users::from_bytes(&forward.to_bytes()), forward);
        assert!((forward.count() - 9000).abs() <= 180, "{}", forward.count());
    }

    #[test]
    fn few_users_are_exact() {
        let mut few = Users::exact(users(0..800)).compact();
        few.unite(&Users::exact(users(400..1200)));
        let few = few.compact();
        assert!(few.is_exact());
        assert_eq!(Users::from_bytes(&few.to_bytes()).count(), 1200);
        assert_eq!(Users::from_bytes(b"").count(), 0);
    }
}
