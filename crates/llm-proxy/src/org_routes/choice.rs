//! Which of a route's targets is asked first, and which then.

use std::sync::atomic::{AtomicU64, Ordering};

use super::model::RouteTarget;

/// A route in use. Turns are counted and not thrown: so the shares are exact over any stretch of requests
/// as long as the sum of the weights.
pub(super) struct Choice {
    /// By priority.
    targets: Vec<RouteTarget>,
    turn: AtomicU64,
}

impl Choice {
    pub(super) fn new(mut targets: Vec<RouteTarget>) -> Self {
        targets.sort_by_key(|target| target.priority);
        Self { targets, turn: AtomicU64::new(0) }
    }

    /// All of them: of each priority first the one whose turn it is, then the others, those with the
    /// greatest weight before.
    pub(super) fn order(&self) -> Vec<&RouteTarget> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order = Vec::with_capacity(self.targets.len());
        for group in self.targets.chunk_by(|a, b| a.priority == b.priority) {
            let from = order.len();
            order.extend(group);
            if let Some(group) = order.get_mut(from..) {
                let first = of_turn(group, turn);
                if let Some(chosen) = group.get_mut(..=first) {
                    chosen.rotate_right(1);
                }
                if let Some(others) = group.get_mut(1..) {
                    others.sort_by_key(|target| std::cmp::Reverse(target.weight));
                }
            }
        }
        order
    }
}

fn of_turn(group: &[&RouteTarget], turn: u64) -> usize {
    let total: u64 = group.iter().map(|target| u64::from(target.weight)).sum();
    let mut at = (turn % total.max(1)) * stride(total) % total.max(1);
    for (index, target) in group.iter().enumerate() {
        let weight = u64::from(target.weight);
        if at < weight {
            return index;
        }
        at -= weight;
    }
    0
}

/// A step by which every number below `total` is met once, and neighbours are far apart: not all turns of
/// one target come in a row.
fn stride(total: u64) -> u64 {
    let near = total * 618 / 1000;
    (near.max(1)..=total.max(1)).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(model: &str, weight: u32, priority: u32) -> RouteTarget {
        let (provider, model) = ("p".to_owned(), model.to_owned());
        RouteTarget { provider, model, weight, priority }
    }

    fn firsts(choice: &Choice, n: usize) -> String {
        (0..n).map(|_| choice.order()[0].model.clone()).collect()
    }

    #[test]
    fn each_has_exactly_its_share_and_not_in_a_row() {
        let choice = Choice::new(vec![target("a", 3, 0), target("b", 1, 0), target("c", 6, 0)]);
        let turns = firsts(&choice, 40);
        let count = |name| turns.matches(name).count();
        assert_eq!((count("a"), count("b"), count("c")), (12, 4, 24), "{turns}");
        assert!(!turns.contains("cccc"), "{turns}");
    }

    #[test]
    fn all_of_a_priority_come_before_the_next_and_none_is_left_out() {
        let choice = Choice::new(vec![
            target("z", 1, 7),
            target("a", 1, 0),
            target("b", 2, 0),
            target("c", 9, 0),
        ]);
        for _ in 0..24 {
            let order: Vec<_> = choice.order().iter().map(|target| target.model.clone()).collect();
            assert_eq!((order.len(), order[3].as_str()), (4, "z"), "{order:?}");
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, ["a", "b", "c", "z"]);
        }
    }

    #[test]
    fn one_target_is_always_it() {
        assert_eq!(firsts(&Choice::new(vec![target("a", 1000, 3)]), 3), "aaa");
    }
}
