//! A map that holds so many entries and no more: the one used longest ago is forgotten first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What has been used last, by key.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// The keys by when they were used; what comes first is forgotten first.
    order: BTreeMap<u64, K>,
    uses: u64,
    entries_max: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// Holds at most `entries_max`, which is not 0.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            entries_max,
        }
    }

    /// What is kept under a key. To look is not to use.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// What is kept under a key, or else what `new` makes. The key counts as used just now.
    pub(super) fn entry(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        match self.entries.get(key) {
            Some((used, _)) => {
                self.order.remove(used);
            }
            None if self.entries.len() >= self.entries_max => {
                if let Some((_, oldest)) = self.order.pop_first() {
                    self.entries.remove(&oldest);
                }
            }
            None => {}
        }
        self.order.insert(self.uses, key.clone());
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| (0, new()));
        entry.0 = self.uses;
        &mut entry.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten_first() {
        let mut recent = Recent::new(3);
        for key in 1..=3 {
            recent.entry(&key, || key * 10);
        }
        *recent.entry(&1, || 0) += 1;
        // Looking at it does not save 2.
        assert_eq!(recent.get(&2), Some(&20));
        recent.entry(&4, || 40);
        let left = |recent: &Recent<i32, i32>| [1, 2, 3, 4].map(|key| recent.get(&key).copied());
        assert_eq!(left(&recent), [Some(11), None, Some(30), Some(40)]);
        // 1 was used after 3.
        recent.entry(&2, || 21);
        assert_eq!(left(&recent), [Some(11), Some(21), None, Some(40)]);
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        let mut recent = Recent::new(100);
        for key in 0..10_000_u32 {
            recent.entry(&(key.wrapping_mul(2_654_435_761) % 500), || ());
            assert!(recent.entries.len() <= 100);
            assert_eq!(recent.entries.len(), recent.order.len());
        }
    }
}
