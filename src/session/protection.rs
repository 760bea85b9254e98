//! TLS on the control connection and on data connections: AUTH, PBSZ, PROT (RFC 2228 §3, RFC 4217).

use super::{Action, Session};
use crate::proto::command::{Command, ProtectionCode};
use crate::proto::reply::{Code, Reply};

/// What an operator offers of TLS, and asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Demands {
    /// It is there.
    pub offered: bool,
    /// Nobody logs in without it.
    pub login: bool,
    /// No data connection is made without it.
    pub data: bool,
    /// The control connection may do without it after the login.
    pub clear: bool,
    /// What a client's certificate is worth.
    pub certificate: CertificateUse,
}

/// What a client's certificate is worth at the login.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CertificateUse {
    /// Nothing.
    #[default]
    None,
    /// The user must be one whom it names.
    Name,
    /// A user whom it names needs no password.
    Login,
}

/// A client that has shown a certificate.
#[derive(Debug)]
pub(super) struct Certified {
    /// Whom it names.
    pub(super) names: Vec<Vec<u8>>,
}

/// What is protected in a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Protection {
    /// The control connection.
    pub(super) control: bool,
    /// The control connection has been, and is not any more.
    cleared: bool,
    /// PBSZ has been sent.
    sized: bool,
    /// Data connections.
    pub(super) private: bool,
}

impl Protection {
    /// As a session begins. Where TLS comes first, PBSZ 0 and PROT P are as if they had been sent.
    pub(super) fn new(implicit: bool) -> Self {
        Self {
            control: implicit,
            cleared: false,
            sized: implicit,
            private: implicit,
        }
    }

    /// As a session begins, but for the control connection, which stays as it is.
    pub(super) fn begin_anew(&mut self, implicit: bool) {
        *self = Self {
            control: self.control,
            ..Self::new(implicit)
        };
    }
}

impl Session {
    pub(super) fn protection_command(&mut self, command: Command<'_>) -> Option<Action> {
        if !self.limits.tls.offered {
            self.say(Code::NOT_IMPLEMENTED, "TLS is not offered here.");
            return None;
        }
        match command {
            Command::Auth(mechanism) => return self.authenticate(mechanism),
            // RFC 4217 §6: in the clear anybody could send them.
            _ if self.protection.cleared => {
                self.say(Code::BAD_SEQUENCE, "Not after CCC.");
            }
            // RFC 4217 §9: PBSZ and PROT come after AUTH.
            _ if !self.protection.control => {
                self.say(Code::BAD_SEQUENCE, "Send AUTH TLS first.");
            }
            Command::Pbsz(size) => {
                self.protection.sized = true;
                // RFC 2228 §3: a size that is not the client's is told. RFC 4217 §9: it is 0.
                match size {
                    0 => self.say(Code::COMMAND_OK, "PBSZ=0"),
                    _ => self.say(Code::COMMAND_OK, "PBSZ=0: TLS has blocks of its own."),
                }
            }
            Command::Prot(level) => self.protect(level),
            Command::Ccc if !self.limits.tls.clear => {
                self.say(Code::POLICY, "Commands stay protected here.");
            }
            Command::Ccc if self.user().is_none() => {
                self.say(Code::NOT_LOGGED_IN, "Please log in with USER and PASS.");
            }
            Command::Ccc => {
                self.protection.control = false;
                self.protection.cleared = true;
                self.say(Code::COMMAND_OK, "Commands are not protected any more.");
                return Some(Action::Clear);
            }
            _ => {}
        }
        None
    }

    /// RFC 4217 §4: AUTH TLS. The other names are those of its drafts, which old clients send; two of
    /// them mean protected data connections, too.
    fn authenticate(&mut self, mechanism: &[u8]) -> Option<Action> {
        let is = |name: &[u8]| mechanism.eq_ignore_ascii_case(name);
        let private = match () {
            () if is(b"TLS") || is(b"TLS-C") => false,
            () if is(b"SSL") || is(b"TLS-P") => true,
            () => {
                self.say(Code::BAD_PARAMETER, "Unknown mechanism: use AUTH TLS.");
                return None;
            }
        };
        if self.protection.cleared {
            self.say(Code::BAD_SEQUENCE, "Not after CCC.");
            return None;
        }
        if self.protection.control {
            self.say(Code::BAD_SEQUENCE, "TLS is in use already.");
            return None;
        }
        // RFC 2228 §3: whoever was logged in is not any more, since anybody may have sent that.
        self.reinitialize();
        self.certified = None;
        self.deferred.clear();
        self.deferred_bytes = 0;
        self.protection = Protection {
            control: true,
            sized: private,
            private,
            ..Protection::new(false)
        };
        self.say(Code::PROCEED, "Begin the TLS handshake.");
        Some(Action::Secure)
    }

    fn protect(&mut self, level: ProtectionCode) {
        let reply = match level {
            _ if !self.protection.sized => Reply::new(Code::BAD_SEQUENCE, "Send PBSZ 0 first."),
            ProtectionCode::Clear if self.limits.tls.data => Reply::new(
                Code::POLICY,
                "Data connections are made over TLS only: use PROT P.",
            ),
            ProtectionCode::Clear => {
                self.protection.private = false;
                Reply::new(Code::COMMAND_OK, "Data connections are not protected.")
            }
            ProtectionCode::Private => {
                self.protection.private = true;
                Reply::new(Code::COMMAND_OK, "Data connections are protected by TLS.")
            }
            ProtectionCode::Safe | ProtectionCode::Confidential => {
                Reply::new(Code::NO_SUCH_LEVEL, "TLS has the levels C and P only.")
            }
        };
        self.reply(reply);
    }
}
