//! Who may have a session: bounds over all cores, looked at once for each control connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proto::network;
use crate::throttle::Limit;

/// Counts the sessions of the process and of each client network. Shared by all cores: a lock per
/// login costs less than what an attacker gains from limits that hold on one core only.
#[derive(Debug)]
pub(super) struct Admission {
    sessions_max: AtomicUsize,
    /// 0: as many as there may be.
    per_client_max: AtomicUsize,
    sessions: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a control connection is closed before its greeting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// The server has as many sessions as it may have.
    Full,
    /// The client's network has as many as one may have.
    ClientFull,
    /// The client's network makes connections faster than one may.
    TooOften,
}

/// A session that has been let in; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Arc<Admission>,
    client: IpAddr,
}

impl Admission {
    /// Lets in `sessions_max` sessions, and `per_client_max` from one IPv4 address or IPv6 /64.
    pub(super) fn new(sessions_max: usize, per_client_max: Option<usize>) -> Self {
        Self {
            sessions_max: AtomicUsize::new(sessions_max),
            per_client_max: AtomicUsize::new(per_client_max.unwrap_or_default()),
            sessions: AtomicUsize::new(0),
            clients: Mutex::default(),
        }
    }

    /// Lets a client in.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr) -> Result<Ticket, Refusal> {
        let client = network::of_client(client);
        let sessions_max = self.sessions_max.load(Ordering::Relaxed);
        let admitted = self
            .sessions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < sessions_max).then_some(count + 1)
            });
        if admitted.is_err() {
            return Err(Refusal::Full);
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        let per_client_max = self.per_client_max.load(Ordering::Relaxed);
        if per_client_max > 0 && *count >= per_client_max {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::ClientFull);
        }
        *count += 1;
        drop(clients);
        Ok(Ticket {
            admission: Arc::clone(self),
            client,
        })
    }

    /// Lets in so many from now on. Sessions beyond them stay.
    pub(super) fn set_limits(&self, sessions_max: usize, per_client_max: Option<usize>) {
        self.sessions_max.store(sessions_max, Ordering::Relaxed);
        let per_client_max = per_client_max.unwrap_or_default();
        self.per_client_max.store(per_client_max, Ordering::Relaxed);
    }

    /// Sessions at the moment.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

impl Refusal {
    /// The reply that the client gets before its connection is closed (RFC 959 §5.4: 421).
    pub(super) fn reply(self) -> &'static [u8] {
        match self {
            Self::Full => b"421 Too many sessions, try again later.\r\n",
            Self::ClientFull => b"421 Too many sessions from your address.\r\n",
            Self::TooOften => b"421 Too many connections from your address, try again later.\r\n",
        }
    }

    /// What it counts as.
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Full => Limit::Sessions,
            Self::ClientFull => Limit::SessionsPerIp,
            Self::TooOften => Limit::ConnectionsPerMinute,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.sessions.fetch_sub(1, Ordering::Relaxed);
        let mut clients = admission
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_in_all_and_per_client() {
        let admission = Arc::new(Admission::new(3, Some(2)));
        let one = IpAddr::from([127, 0, 0, 1]);
        let two = IpAddr::from([127, 0, 0, 2]);
        let first = admission.enter(one).expect("the first");
        let _second = admission.enter(one).expect("the second");
        assert_eq!(
            admission.enter(one).expect_err("one too many"),
            Refusal::ClientFull
        );
        let _third = admission.enter(two).expect("another client");
        assert_eq!(admission.enter(two).expect_err("full"), Refusal::Full);
        drop(first);
        assert_eq!(admission.sessions(), 2);
        let _again = admission.enter(one).expect("room again");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let admission = Arc::new(Admission::new(9, Some(1)));
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _first = admission.enter(address("2001:db8::1")).expect("the first");
        assert!(admission.enter(address("2001:db8::ffff:2")).is_err());
        assert!(admission.enter(address("2001:db8:0:1::1")).is_ok());
    }
}
