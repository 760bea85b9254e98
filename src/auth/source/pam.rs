//! The accounts of this host, with whatever proof PAM asks for (pam.d(5)).

use std::sync::Arc;
use std::time::Duration;

use super::accounts::{Account, Accounts};
use super::{Found, Login, Member, Source};
use crate::auth::pam::{PamDoor, Question};
use crate::auth::{Identity, PASSWORD_LENGTH_MAX, Reason, UserList};
use crate::config::{self, SourceKind};
use crate::sys::pam::Verdict;

/// Asked once for each login that is not remembered.
#[derive(Debug)]
pub(in crate::auth) struct Pam {
    accounts: Accounts,
    /// `None`: PAM was not to be asked when the server started.
    door: Option<Arc<PamDoor>>,
    timeout: Duration,
}

impl Pam {
    pub(in crate::auth) fn new(users: &config::Users, door: Option<Arc<PamDoor>>) -> Self {
        Self {
            accounts: Accounts::new(users),
            door,
            timeout: users.source_timeout,
        }
    }

    fn judge(&self, login: &Login<'_>, account: Account) -> Result<Found, String> {
        let Some(door) = &self.door else {
            return Err("pam: it is asked from the next restart of the server on".to_owned());
        };
        if login.password.len() > PASSWORD_LENGTH_MAX {
            return Ok(Found::Refused(Reason::WrongPassword));
        }
        let question = Question {
            user: login.name.as_str(),
            client: &login.client.to_string(),
            password: login.password,
        };
        let verdict = door.ask(&question, self.timeout);
        let refused = |reason| Ok(Found::Refused(reason));
        match verdict.map_err(|reason| format!("pam: {reason}"))? {
            Verdict::Accepted => match account.member(login, self.kind())? {
                Ok(member) => Ok(Found::Verified(Box::new(member))),
                Err(reason) => refused(reason),
            },
            Verdict::Refused => refused(Reason::WrongPassword),
            Verdict::Closed => refused(Reason::Disabled),
            Verdict::Expired => refused(Reason::Expired),
            Verdict::PasswordExpired => refused(Reason::PasswordExpired),
        }
    }
}

impl Source for Pam {
    fn kind(&self) -> SourceKind {
        SourceKind::Pam
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        match self.accounts.find(login.name)? {
            // A closed one is asked for, too: the time must not tell.
            Some(account) => self.judge(login, account),
            None => Ok(Found::Unknown),
        }
    }

    fn still_has(&self, login: &Login<'_>, member: &Member) -> bool {
        let Ok(Some(account)) = self.accounts.find(login.name) else {
            return false;
        };
        let ids = account.user.map(|user| user.ids);
        account.closed.is_none() && ids == member.identity.account
    }

    fn list(&self, _users: &UserList) -> Result<Vec<Identity>, String> {
        Ok(Vec::new())
    }
}
