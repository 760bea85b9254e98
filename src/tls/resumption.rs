//! Which control session a TLS session was begun in.
//!
//! Whoever connects to a passive port might be a neighbour of the client behind the same address. A
//! data connection that resumes the TLS session of the control connection cannot be: it knows the
//! session's secret. So every ticket, and every session that is kept for clients without tickets,
//! begins with the number of the control session in which it was made, and for a data connection only
//! those of its own control session are any good. rustls has no notion of that; what it asks to encrypt,
//! decrypt, put and get goes through a [`Face`] of the session.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

/// The secrets of the process. They outlive reloads, so that sessions are resumed across them.
pub struct Keys {
    pub(super) provider: Arc<CryptoProvider>,
    /// Keys of tickets, which are replaced every six hours, and good for as long again.
    tickets: Arc<dyn ProducesTickets>,
    /// Sessions of clients that know no tickets.
    sessions: Arc<ServerSessionMemoryCache>,
}

impl Keys {
    /// Fresh ones.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Arc<Self>, rustls::Error> {
        Ok(Arc::new(Self {
            provider: Arc::new(super::provider()),
            tickets: aws_lc_rs::Ticketer::new()?,
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
        }))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The keys as one session sees them.
#[derive(Debug)]
pub(super) struct Face {
    keys: Arc<Keys>,
    /// The control session's number; `None`: nothing is resumed.
    number: Option<u64>,
    /// What other sessions have begun is good, too.
    takes_others: bool,
}

impl Face {
    /// A control connection may resume the session of an earlier one.
    pub(super) fn control(keys: &Arc<Keys>, number: u64) -> Self {
        Self {
            keys: Arc::clone(keys),
            number: Some(number),
            takes_others: true,
        }
    }

    /// A data connection resumes that of its own control connection, or of an earlier data connection
    /// of it.
    pub(super) fn data(keys: &Arc<Keys>, number: u64) -> Self {
        Self {
            keys: Arc::clone(keys),
            number: Some(number),
            takes_others: false,
        }
    }

    /// Nothing is resumed.
    pub(super) fn none(keys: &Arc<Keys>) -> Self {
        Self {
            keys: Arc::clone(keys),
            number: None,
            takes_others: false,
        }
    }

    fn marked(&self, value: &[u8]) -> Option<Vec<u8>> {
        let number = self.number?.to_be_bytes();
        Some([&number, value].concat())
    }

    /// What was marked, if this session may have it.
    fn unmarked(&self, marked: &[u8]) -> Option<Vec<u8>> {
        let own = self.number?;
        let (number, value) = marked.split_first_chunk()?;
        let is_own = u64::from_be_bytes(*number) == own;
        (is_own || self.takes_others).then(|| value.to_vec())
    }
}

impl ProducesTickets for Face {
    fn enabled(&self) -> bool {
        self.number.is_some()
    }

    fn lifetime(&self) -> u32 {
        self.keys.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.tickets.encrypt(&self.marked(plain)?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.unmarked(&self.keys.tickets.decrypt(cipher)?)
    }
}

impl StoresServerSessions for Face {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let marked = self.marked(&value);
        marked.is_some_and(|marked| self.keys.sessions.put(key, marked))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unmarked(&self.keys.sessions.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unmarked(&self.keys.sessions.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.number.is_some()
    }
}

/// Sessions of clients without tickets, of some 300 bytes each; the oldest goes first.
const SESSIONS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_own_session_alone() {
        let keys = Keys::new().expect("keys");
        let ticket = Face::control(&keys, 7)
            .encrypt(b"secret")
            .expect("a ticket");
        assert_eq!(
            Face::data(&keys, 7).decrypt(&ticket),
            Some(b"secret".to_vec())
        );
        assert_eq!(Face::data(&keys, 8).decrypt(&ticket), None);
        assert_eq!(Face::none(&keys).decrypt(&ticket), None);
        // Another control connection of the client spares its handshake.
        assert_eq!(
            Face::control(&keys, 8).decrypt(&ticket),
            Some(b"secret".to_vec())
        );
        let others = Keys::new().expect("keys");
        assert_eq!(Face::control(&others, 7).decrypt(&ticket), None);
        assert_eq!(Face::control(&keys, 7).decrypt(b"forged"), None);
    }

    #[test]
    fn so_is_a_session_that_is_kept() {
        let keys = Keys::new().expect("keys");
        assert!(Face::control(&keys, 7).put(b"id".to_vec(), b"secret".to_vec()));
        assert_eq!(Face::data(&keys, 7).get(b"id"), Some(b"secret".to_vec()));
        assert_eq!(Face::data(&keys, 8).get(b"id"), None);
        assert_eq!(Face::control(&keys, 8).get(b"id"), Some(b"secret".to_vec()));
        assert!(!Face::none(&keys).put(b"id".to_vec(), b"secret".to_vec()));
        assert!(!Face::none(&keys).can_cache() && !Face::none(&keys).enabled());
    }
}
