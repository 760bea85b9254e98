//! Who logs in: what the authenticator is asked, and the tree that is opened for a user.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::{Connection, Phase, Tree};
use crate::auth::{Claim, Counts, Identity, Outcome};
use crate::proto;
use crate::session::action::Credentials;
use crate::session::event::Verdict;
use crate::throttle::{Entry, Limit};

impl Connection {
    pub(super) async fn verify(&mut self, credentials: Credentials) -> Verdict {
        let asked = Instant::now();
        let (host, user) = (Rc::clone(self.session.host()), credentials.user.clone());
        let claim = Claim {
            host: &host,
            user: &user,
            client: self.card.peer(),
        };
        if let Some(identity) = self.core.authenticator.anonymous(claim) {
            return self.enter(&host, identity).await;
        }
        let outcome = self.identify(claim, credentials.password).await;
        self.judge(claim, asked, outcome).await
    }

    /// Lets a user in whom the client's certificate names.
    pub(super) async fn admit(&mut self, user: Vec<u8>) -> Verdict {
        let (asked, client) = (Instant::now(), self.card.peer());
        let host = Rc::clone(self.session.host());
        let authenticator = Arc::clone(&self.core.authenticator);
        let (at, name) = (String::from(&*host), user.clone());
        let admit = move || {
            authenticator.admit(Claim {
                host: &at,
                user: &name,
                client,
            })
        };
        let outcome = match self.core.verifiers.run(admit).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Unavailable(error.to_string()),
        };
        let claim = Claim {
            host: &host,
            user: &user,
            client,
        };
        self.judge(claim, asked, outcome).await
    }

    async fn judge(&mut self, claim: Claim<'_>, asked: Instant, outcome: Outcome) -> Verdict {
        let Claim { host, user, .. } = claim;
        let outcome = match outcome {
            Outcome::Accepted(identity) => Ok(identity),
            Outcome::Refused(reason) => Err(reason),
            Outcome::Unavailable(error) => {
                tracing::error!(peer = %self.card.peer(), error, "logins cannot be verified");
                return Verdict::Unavailable;
            }
        };
        let limits = self.core.settings().guard;
        match self.core.authenticator.judge(claim, outcome, &limits) {
            Ok(identity) => self.enter(host, identity).await,
            Err((reason, delay)) => {
                let user = proto::printable(user);
                let host = Some(host).filter(|host| !host.is_empty());
                tracing::warn!(peer = %self.card.peer(), user, host, %reason, "login refused");
                // Counted from the question: the answer does not tell how long its making took.
                self.wait_until(asked + delay).await;
                Verdict::Refused
            }
        }
    }

    /// Who it is, from memory if possible, otherwise from a worker.
    async fn identify(&self, claim: Claim<'_>, password: Vec<u8>) -> Outcome {
        let authenticator = Arc::clone(&self.core.authenticator);
        if let Some(outcome) = authenticator.verify_at_once(claim, &password) {
            return outcome;
        }
        let (host, user) = (claim.host.to_owned(), claim.user.to_owned());
        let client = claim.client;
        let verify = move || {
            let claim = Claim {
                host: &host,
                user: &user,
                client,
            };
            authenticator.verify(claim, &password)
        };
        match self.core.verifiers.run(verify).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Unavailable(error.to_string()),
        }
    }

    /// Lets this session wait, and no other; not beyond its end, by the server's or otherwise.
    async fn wait_until(&self, until: Instant) {
        let mut sleep = pin!(tokio::time::sleep_until(until.into()));
        // Whoever ends the session wakes its task.
        poll_fn(|context| match self.phase() {
            Phase::Serving => sleep.as_mut().poll(context),
            Phase::Draining | Phase::Ending => Poll::Ready(()),
        })
        .await;
    }

    /// Opens the tree of a user who may log in.
    async fn enter(&mut self, host: &str, identity: Identity) -> Verdict {
        let Identity {
            name,
            root,
            rights,
            quota,
            folders,
            allowance,
            account,
            files,
        } = identity;
        let settings = self.core.settings();
        let Some(of_host) = settings.hosts.get(host) else {
            tracing::warn!(peer = %self.card.peer(), host, "login refused: the host has gone");
            return Verdict::Unavailable;
        };
        let allowance = allowance.unwrap_or(of_host.anonymous);
        let volume = match allowance.volume.are_set() {
            true => match self.core.quotas.volume_of(&name, allowance.volume).await {
                Ok(volume) => Some(volume),
                Err(error) => {
                    tracing::error!(user = name, %error, "users.state: the volume of a user cannot be read");
                    return Verdict::Unavailable;
                }
            },
            false => None,
        };
        let member = self.core.throttle.enter(Entry {
            user: &name,
            allowance,
            volume,
            sessions_max: of_host.sessions_per_user,
            session_rates: settings.session_rates,
            host: of_host.allowance.map(|allowance| (host, allowance)),
        });
        let member = match member {
            Ok(member) => member,
            Err(limit) => {
                let (peer, limit_name) = (self.card.peer(), limit.name());
                tracing::warn!(%peer, user = name, limit = limit_name, "login refused: too many sessions");
                return match limit {
                    Limit::SessionsPerHost => Verdict::HostFull,
                    _ => Verdict::TooMany,
                };
            }
        };
        let tree = (root.clone(), folders, account, files);
        let roots = &self.core.roots;
        match roots.open(tree, settings.files, &self.core.verifiers).await {
            Ok(opened) => {
                let quota = quota.are_set().then(|| self.core.quotas.of(&name, quota));
                self.member = Some(member);
                self.tree = Some(Tree {
                    root: opened,
                    rights: Arc::clone(&rights),
                    quota,
                });
                self.entered(host, name);
                Verdict::Accepted(rights)
            }
            Err(error) => {
                let root = root.display();
                tracing::error!(user = name, %root, %error, "the root of a user cannot be opened");
                Verdict::Unavailable
            }
        }
    }

    /// Tells whoever wants to know that a user is there.
    fn entered(&self, host: &str, user: String) {
        let session = self.card.id();
        tracing::info!(session, peer = %self.card.peer(), user, "login");
        Counts::add(&self.core.authenticator.counts().accepted);
        if !host.is_empty() {
            let user = Some(Rc::from(user.into_bytes()));
            self.core.register.set_user(&self.card, user);
        }
    }
}
