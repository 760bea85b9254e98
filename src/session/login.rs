//! Who works here, and on which host: USER, PASS, ACCT, REIN (RFC 959 §4.1.1), HOST (RFC 7151).

use std::mem;
use std::rc::Rc;

use super::action::Credentials;
use super::event::Verdict;
use super::protection::{CertificateUse, Protection};
use super::{Action, DEFAULT_HASH, Limits, Login, Question, Session};
use crate::proto::argument::TypeCode;
use crate::proto::command::{Command, Verb};
use crate::proto::listing::FactSet;
use crate::proto::path::VirtualPath;
use crate::proto::reply::{Code, Reply};

/// Verbs that need no login. FEAT, OPTS, HOST, CLNT and CSID come first in clients' scripts
/// (RFC 2389 §3.1, RFC 7151 §3.2).
pub(super) fn allowed_before_login(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::User
            | Verb::Pass
            | Verb::Acct
            | Verb::Rein
            | Verb::Quit
            | Verb::Abor
            | Verb::Noop
            | Verb::Help
            | Verb::Syst
            | Verb::Feat
            | Verb::Opts
            | Verb::Lang
            | Verb::Clnt
            | Verb::Csid
            | Verb::Host
            | Verb::Auth
            | Verb::Pbsz
            | Verb::Prot
            | Verb::Ccc
    )
}

impl Session {
    pub(super) fn login_command(&mut self, command: Command<'_>) -> Option<Action> {
        match command {
            Command::User(name) => {
                if let Login::In { user, .. } = &self.login {
                    // RFC 959 §4.1.1 leaves a change of user in mid-session to the server.
                    if **user == *name {
                        self.say(Code::LOGGED_IN, "Already logged in.");
                    } else {
                        self.say(
                            Code::NOT_LOGGED_IN,
                            "Already logged in: send REIN to change the user.",
                        );
                    }
                    return None;
                }
                if self.limits.tls.login && !self.protection.control {
                    // RFC 4217 §12.2 lets a server refuse whoever comes without.
                    self.say(
                        Code::NOT_LOGGED_IN,
                        "Logins are taken over TLS only: send AUTH TLS first.",
                    );
                    return None;
                }
                let is_named = self.is_named_by_certificate(name);
                match (self.limits.tls.certificate, is_named) {
                    (CertificateUse::Name, Some(false)) => {
                        self.say(
                            Code::NOT_LOGGED_IN,
                            "The client's certificate is not that of this user.",
                        );
                        return None;
                    }
                    (CertificateUse::Login, Some(true)) => {
                        self.login = Login::Admitting(name.to_vec());
                        return Some(Action::Admit(name.to_vec()));
                    }
                    _ => {}
                }
                self.login = Login::Named(name.to_vec());
                self.say(Code::NEED_PASSWORD, "Please specify the password.");
                None
            }
            Command::Pass(password) => self.password(password.expose()),
            Command::Acct(_) => {
                // RFC 959 §5.4: 202 where an account adds nothing, 503 before it is asked for.
                match self.login {
                    Login::In { .. } => self.say(Code::SUPERFLUOUS, "No account is needed."),
                    _ => self.say(Code::BAD_SEQUENCE, "Log in with USER and PASS first."),
                }
                None
            }
            _ => {
                let was_protected = self.protection.control;
                self.reinitialize();
                self.say(Code::READY, "Ready for a new user.");
                // RFC 4217 §11: REIN ends TLS. Where it comes first, it is there from the beginning.
                if !was_protected || !self.client.implicit_tls {
                    self.certified = None;
                }
                match was_protected && !self.client.implicit_tls {
                    true => {
                        self.protection = Protection::new(false);
                        Some(Action::ClearAndReset)
                    }
                    false => Some(Action::Reset),
                }
            }
        }
    }

    /// Whether the client's certificate names this user, if it has shown one on this TLS session. On a
    /// virtual host, whose people are others, `shop/alice` is what it has to say.
    fn is_named_by_certificate(&self, name: &[u8]) -> Option<bool> {
        let certified = self.certified.as_ref();
        let certified = certified.filter(|_| self.protection.control)?;
        let host = self.limits.host.as_bytes();
        let qualified = match host {
            b"" => name.to_vec(),
            _ => [host, b"/", name].concat(),
        };
        Some(certified.names.contains(&qualified))
    }

    /// RFC 7151 §3.2: HOST comes before USER, and may come again.
    pub(super) fn choose_host(&mut self, name: &[u8]) -> Option<Action> {
        if !matches!(self.login, Login::Start) {
            self.say(Code::BAD_SEQUENCE, "HOST must come before USER.");
            return None;
        }
        Some(Action::ChooseHost(name.to_vec()))
    }

    pub(super) fn host_chosen(&mut self, limits: Option<Rc<Limits>>) {
        let Some(limits) = limits else {
            // RFC 7151 §3.2: 504 for a host that is not known; the one before it stays.
            self.say(Code::BAD_PARAMETER, "There is no such host here.");
            return;
        };
        if self.named && limits.host != self.limits.host {
            // RFC 7151 §3.2.2: the certificate that the client has seen is that of another host.
            self.say(
                Code::BAD_PARAMETER,
                "The TLS session is that of another host.",
            );
            return;
        }
        let named = self.named;
        self.begin_at(limits);
        self.named = named;
        self.greet();
    }

    pub(super) fn greet(&mut self) {
        let greeting = Reply::text(Code::READY, self.limits.greeting.as_bytes());
        self.reply(greeting);
    }

    /// The client has named a virtual host in its TLS handshake, which holds for as long as that session.
    pub fn begin_by_name(&mut self, limits: Rc<Limits>) {
        let is_other = limits.host != self.limits.host;
        self.begin_again_by_name(limits);
        // Where TLS comes first, the greeting waits for its end.
        if is_other && self.client.implicit_tls {
            self.output.clear();
            self.greet();
        }
    }

    /// The same after REIN, where the TLS session goes on.
    pub fn begin_again_by_name(&mut self, limits: Rc<Limits>) {
        self.begin_at(limits);
        self.named = true;
    }

    /// What holds for this session from now on, which nobody is logged in to.
    pub fn begin_at(&mut self, limits: Rc<Limits>) {
        self.idle_timeout = limits.idle_timeout;
        self.limits = limits;
        self.named = false;
    }

    fn password(&mut self, password: &[u8]) -> Option<Action> {
        match mem::replace(&mut self.login, Login::Start) {
            Login::Named(user) => {
                self.login = Login::Verifying(user.clone());
                Some(Action::Verify(Credentials {
                    user,
                    password: password.to_vec(),
                }))
            }
            Login::In { user, rights } => {
                self.login = Login::In { user, rights };
                self.say(Code::SUPERFLUOUS, "Already logged in.");
                None
            }
            Login::Start | Login::Verifying(_) | Login::Admitting(_) => {
                self.say(Code::BAD_SEQUENCE, "Log in with USER first.");
                None
            }
        }
    }

    pub(super) fn verified(&mut self, verdict: Verdict) -> Option<Action> {
        let (user, code, text) = match mem::replace(&mut self.login, Login::Start) {
            Login::Verifying(user) => (user, Code::LOGGED_IN, "Login successful."),
            // RFC 2228 §3, RFC 4217 §5: no password is needed.
            Login::Admitting(user) => (user, Code::AUTHORIZED, "Logged in by certificate."),
            _ => return None,
        };
        match verdict {
            Verdict::Accepted(rights) => {
                let user = user.into();
                self.login = Login::In { user, rights };
                self.attempts = 0;
                self.say(code, text);
                None
            }
            Verdict::Refused => {
                self.attempts += 1;
                if self.attempts >= self.limits.login_attempts {
                    self.say(Code::CLOSING, "Too many wrong logins.");
                    return Some(Action::Close);
                }
                self.say(Code::NOT_LOGGED_IN, "Login incorrect.");
                None
            }
            Verdict::TooMany => {
                // Not 530, which would have a client ask for another password: the same login works
                // later (RFC 959 §5.4 allows 421 for every command).
                self.say(
                    Code::CLOSING,
                    "Too many sessions of this user, try again later.",
                );
                Some(Action::Close)
            }
            Verdict::HostFull => {
                self.say(
                    Code::CLOSING,
                    "Too many sessions on this host, try again later.",
                );
                Some(Action::Close)
            }
            Verdict::Unavailable => {
                self.say(
                    Code::CLOSING,
                    "Logins cannot be served now, try again later.",
                );
                Some(Action::Close)
            }
        }
    }

    /// RFC 959 §4.1.1, REIN: the state found immediately after the control connection is opened.
    pub(super) fn reinitialize(&mut self) {
        self.login = Login::Start;
        self.directory = VirtualPath::root();
        self.type_code = TypeCode::Ascii;
        self.restart = 0;
        self.rename_from = None;
        self.endpoint = None;
        self.epsv_all = false;
        self.umask = None;
        self.idle_timeout = self.limits.idle_timeout;
        self.facts = FactSet::default();
        self.hash = DEFAULT_HASH;
        self.question = Question::None;
        self.protection.begin_anew(self.client.implicit_tls);
    }
}
