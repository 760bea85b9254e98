//! How often new control connections come from a client network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::bucket::Events;

/// The client networks whose connections of late are remembered.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    states: HashMap<IpAddr, Duration>,
    swept: Duration,
}

impl Arrivals {
    /// Whether a connection may come from `network` now; if so, it counts.
    pub(super) fn admit(&mut self, network: IpAddr, per_minute: u32, now: Duration) -> bool {
        let Some(events) = Events::new(per_minute, MINUTE) else {
            return true;
        };
        if self.states.len() >= NETWORKS_MAX && !self.states.contains_key(&network) {
            // Looking through all of them at each connection would be an attack of its own.
            if now >= self.swept + SWEEP_INTERVAL {
                self.swept = now;
                self.states.retain(|_, state| *state > now);
            }
            if self.states.len() >= NETWORKS_MAX {
                // Who has so many networks is not held up by a limit for each of them.
                return true;
            }
        }
        let state = self.states.entry(network).or_default();
        let may_come = events.next(*state) <= now;
        if may_come {
            *state = events.after(*state, now);
        }
        may_come
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// 4 MiB of memory, about.
const NETWORKS_MAX: usize = 65_536;

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_number_a_minute_and_others_theirs() {
        let mut arrivals = Arrivals::default();
        let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let start = Duration::from_secs(1000);
        let mut admit =
            |network, seconds| arrivals.admit(network, 6, start + Duration::from_secs(seconds));
        assert!((0..6).all(|_| admit(one, 0)));
        assert!(!admit(one, 0) && !admit(one, 9));
        assert!(admit(two, 9));
        assert!(admit(one, 10) && !admit(one, 10));
        assert_eq!((0..9).filter(|_| admit(one, 200)).count(), 6);
    }

    #[test]
    fn memory_is_bounded() {
        let mut arrivals = Arrivals::default();
        let now = Duration::from_secs(1000);
        for number in 0..100_000_u32 {
            assert!(arrivals.admit(IpAddr::from(number.to_be_bytes()), 6, now));
        }
        assert_eq!(arrivals.states.len(), NETWORKS_MAX);
        let later = now + MINUTE;
        assert!(arrivals.admit(IpAddr::from([255; 4]), 6, later));
        assert_eq!(arrivals.states.len(), 1);
    }
}
