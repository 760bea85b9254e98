//! A queue of ports from which any one can be taken: a list, doubly linked by port indices, so that
//! every operation costs the same however many ports there are.

use super::table::PortIndex;

/// Ports in an order. A port is in it once or not at all.
#[derive(Debug, Default)]
pub(super) struct Queue {
    links: Vec<Link>,
    first: Option<PortIndex>,
    last: Option<PortIndex>,
    length: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    before: Option<PortIndex>,
    after: Option<PortIndex>,
    is_in: bool,
}

impl Queue {
    /// Puts a port at the end, wherever it was before.
    pub(super) fn push_back(&mut self, port: PortIndex) {
        self.remove(port);
        let at = port as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link::default());
        }
        self.links[at] = Link {
            before: self.last,
            after: None,
            is_in: true,
        };
        match self.last {
            Some(last) => self.links[last as usize].after = Some(port),
            None => self.first = Some(port),
        }
        self.last = Some(port);
        self.length += 1;
    }

    /// Takes a port out; false if it was not in.
    pub(super) fn remove(&mut self, port: PortIndex) -> bool {
        let Some(link) = self.links.get_mut(port as usize) else {
            return false;
        };
        let Link {
            before,
            after,
            is_in,
        } = std::mem::take(link);
        if !is_in {
            return false;
        }
        match before {
            Some(before) => self.links[before as usize].after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => self.links[after as usize].before = before,
            None => self.last = before,
        }
        self.length -= 1;
        true
    }

    pub(super) fn contains(&self, port: PortIndex) -> bool {
        self.links.get(port as usize).is_some_and(|link| link.is_in)
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// From the first to the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = PortIndex> {
        std::iter::successors(self.first, |port| self.links[*port as usize].after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_vector_would(steps in prop::collection::vec((0..20u32, any::<bool>()), 0..200)) {
            let mut queue = Queue::default();
            let mut model: Vec<u32> = Vec::new();
            for (port, push) in steps {
                let was_in = model.contains(&port);
                prop_assert_eq!(queue.contains(port), was_in);
                model.retain(|other| *other != port);
                if push {
                    queue.push_back(port);
                    model.push(port);
                } else {
                    prop_assert_eq!(queue.remove(port), was_in);
                }
                prop_assert_eq!(queue.iter().collect::<Vec<_>>(), model.clone());
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
