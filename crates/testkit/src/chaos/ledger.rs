//! A client's record of what it was told is done, to be compared with what is there afterwards.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Shared by its clones.
#[derive(Debug)]
pub struct Ledger<T>(Arc<Mutex<BTreeMap<T, usize>>>);

impl<T> Clone for Ledger<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Ord + Clone> Default for Ledger<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// How what was found differs from what was acknowledged, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison<T> {
    /// Acknowledged, and not there or not as often.
    pub missing: Vec<T>,
    /// There more often than acknowledged, and more than once.
    pub duplicated: Vec<T>,
    /// There, and never acknowledged: work whose answer was lost, which is no fault.
    pub unacknowledged: Vec<T>,
}

impl<T> Comparison<T> {
    /// Nothing is missing, and nothing is there twice.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.duplicated.is_empty()
    }
}

impl<T: Ord + Clone> Ledger<T> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// The server said that this is done.
    pub fn acknowledge(&self, item: T) {
        *self.0.lock().unwrap().entry(item).or_default() += 1;
    }

    /// How many acknowledgements there were.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    pub fn compare(&self, found: impl IntoIterator<Item = T>) -> Comparison<T> {
        let mut there = BTreeMap::<T, usize>::new();
        for item in found {
            *there.entry(item).or_default() += 1;
        }
        let acknowledged = self.0.lock().unwrap();
        let missing = acknowledged
            .iter()
            .filter(|(item, times)| there.get(item).unwrap_or(&0) < times)
            .map(|(item, _)| item.clone())
            .collect();
        let duplicated = there
            .iter()
            .filter(|(item, times)| **times > *acknowledged.get(item).unwrap_or(&0).max(&1))
            .map(|(item, _)| item.clone())
            .collect();
        let unacknowledged =
            there.keys().filter(|item| !acknowledged.contains_key(item)).cloned().collect();
        Comparison { missing, duplicated, unacknowledged }
    }
}
