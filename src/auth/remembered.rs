//! Logins verified a moment ago: devices that log in for every file cost no password hash.
//!
//! What is kept is a keyed hash over the name, the password and the stored hash that it matched.
//! The key is random and dies with the process, so a dump of the entries is of no use elsewhere; and
//! since the stored hash of the *current* users file goes into the question, an entry is worth
//! nothing once the user has another password or is gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::name::UserName;
use super::recent::Recent;
use super::source::Member;
use crate::config::SourceKind;

/// The passwords that were right within the last while. Shared by all cores.
pub(super) struct Remembered {
    /// `None`: nothing is remembered.
    keyed: Option<Hmac<Sha256>>,
    span: Duration,
    /// One for each user: the file has one password for each.
    entries: Mutex<Recent<UserName, Entry>>,
}

#[derive(Clone)]
struct Entry {
    tag: [u8; 32],
    until: Instant,
    /// Whom a source found that looks at passwords itself.
    member: Option<Arc<Member>>,
}

impl Remembered {
    /// Remembers for `span` after each verification; zero: never.
    pub(super) fn new(span: Duration) -> Self {
        let mut key = [0; 32];
        // Without a secret key nothing can be kept safely, and the server works without.
        let is_on = !span.is_zero() && getrandom::fill(&mut key).is_ok();
        Self {
            keyed: is_on.then(|| Hmac::new_from_slice(&key).ok()).flatten(),
            span,
            entries: Mutex::new(Recent::new(ENTRIES_MAX)),
        }
    }

    /// Whether anything is remembered at all.
    pub(super) fn is_on(&self) -> bool {
        self.keyed.is_some()
    }

    /// Whether this password matched this stored hash of the user a while ago. The comparison takes
    /// constant time.
    pub(super) fn holds(
        &self,
        user: &UserName,
        password: &[u8],
        stored: &str,
        now: Instant,
    ) -> bool {
        self.entry(user, password, stored, now).is_some()
    }

    /// Whom a source of this kind, which looks at passwords itself, has found with this password a
    /// while ago.
    pub(super) fn verified(
        &self,
        kind: SourceKind,
        user: &UserName,
        password: &[u8],
    ) -> Option<Member> {
        let entry = self.entry(user, password, &verified_by(kind), Instant::now())?;
        entry.member.map(Arc::unwrap_or_clone)
    }

    fn entry(&self, user: &UserName, password: &[u8], stored: &str, now: Instant) -> Option<Entry> {
        let keyed = self.keyed.as_ref()?;
        let entry = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.get(user).cloned()
        };
        entry.filter(|entry| now < entry.until).filter(|entry| {
            over(keyed, user, password, stored)
                .verify_slice(&entry.tag)
                .is_ok()
        })
    }

    /// Notes that the password has just matched. What is remembered is not renewed by use: the hash
    /// has the last word once in every span.
    pub(super) fn add(&self, user: &UserName, password: &[u8], stored: &str, now: Instant) {
        self.note(user, password, stored, now, None);
    }

    /// Notes whom a source has found that looks at passwords itself.
    pub(super) fn add_verified(
        &self,
        kind: SourceKind,
        user: &UserName,
        password: &[u8],
        member: &Member,
    ) {
        let member = self.is_on().then(|| Arc::new(member.clone()));
        self.note(user, password, &verified_by(kind), Instant::now(), member);
    }

    fn note(
        &self,
        user: &UserName,
        password: &[u8],
        stored: &str,
        now: Instant,
        member: Option<Arc<Member>>,
    ) {
        let Some(keyed) = &self.keyed else {
            return;
        };
        let tag = over(keyed, user, password, stored).finalize();
        let entry = Entry {
            tag: tag.into_bytes().into(),
            until: now + self.span,
            member,
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.entry(user, || entry.clone());
        *known = entry;
    }
}

/// What stands for the stored hash where there is none; no hash looks like that.
fn verified_by(kind: SourceKind) -> String {
    format!("by {kind:?}")
}

/// Each part with its length before it, so that no two questions are made of the same bytes.
fn over(keyed: &Hmac<Sha256>, user: &UserName, password: &[u8], stored: &str) -> Hmac<Sha256> {
    let mut mac = keyed.clone();
    for part in [user.as_str().as_bytes(), password, stored.as_bytes()] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered")
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}

/// Users that log in within one span; some 250 B each.
const ENTRIES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserName {
        UserName::parse(text.as_bytes()).expect("a name")
    }

    #[test]
    fn only_what_was_verified_is_remembered() {
        let (remembered, now) = (Remembered::new(Duration::from_secs(300)), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        remembered.add(&name("alice"), b"secret", "$hash$1", now);
        for (user, password, stored, when, holds) in [
            ("alice", &b"secret"[..], "$hash$1", now, true),
            ("alice", b"secret", "$hash$1", later(299), true),
            ("alice", b"secret", "$hash$1", later(300), false),
            ("alice", b"secret", "$hash$2", now, false),
            ("alice", b"secret$", "hash$1", now, false),
            ("alice", b"Secret", "$hash$1", now, false),
            ("alice", b"", "$hash$1", now, false),
            ("bob", b"secret", "$hash$1", now, false),
        ] {
            let found = remembered.holds(&name(user), password, stored, when);
            assert_eq!(found, holds, "{user} {password:?} {stored}");
        }
        // Another password takes the place of the old one.
        remembered.add(&name("alice"), b"other", "$hash$2", now);
        assert!(!remembered.holds(&name("alice"), b"secret", "$hash$1", now));
        assert!(remembered.holds(&name("alice"), b"other", "$hash$2", now));
    }

    #[test]
    fn two_processes_have_different_tags() {
        let now = Instant::now();
        let tag = || {
            let remembered = Remembered::new(Duration::from_secs(1));
            remembered.add(&name("alice"), b"secret", "$hash$1", now);
            let entries = remembered.entries.lock().expect("no panic");
            entries.get(&name("alice")).expect("an entry").tag
        };
        assert_ne!(tag(), tag());
    }

    #[test]
    fn nothing_is_remembered_when_it_is_off() {
        let (remembered, now) = (Remembered::new(Duration::ZERO), Instant::now());
        remembered.add(&name("alice"), b"secret", "$hash$1", now);
        assert!(!remembered.is_on());
        assert!(!remembered.holds(&name("alice"), b"secret", "$hash$1", now));
    }
}
