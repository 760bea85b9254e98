//! `[server]`: addresses, cores, the user to run as.

use std::net::SocketAddr;
use std::time::Duration;

use super::cores::{self, Cores};
use super::section::{Section, Value, Wrong};
use super::units;

/// Where and as whom the server runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// Addresses of the control connection, at least one, without repetition. Every core listens
    /// on each of them (SO_REUSEPORT). IPv6 sockets take IPv6 only, so `0.0.0.0` and `[::]` stand
    /// side by side. Port 0 leaves the choice to the kernel.
    pub listen: Vec<SocketAddr>,
    /// Those of `listen` that a reload has taken away: nothing listens there. They keep their places, by
    /// which sessions know through which one they came.
    pub left: Vec<SocketAddr>,
    /// Which CPUs serve.
    pub cores: Cores,
    /// The user to become after binding, when started as root.
    pub user: Option<String>,
    /// The group to become; without it the primary group of `user`.
    pub group: Option<String>,
    /// The text of the 220 reply: one line, printable, 1 to [`GREETING_LENGTH_MAX`] bytes.
    pub greeting: String,
    /// How long running transfers may go on after SIGTERM; zero cuts them off at once.
    pub drain_timeout: Duration,
    /// Which core a control connection comes to.
    pub steering: Steering,
    /// A core with much more to do than another hands new control connections to that one.
    pub balance: bool,
}

/// Which core a control connection comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Steering {
    /// The kernel spreads connections by a hash of their addresses and ports.
    Hash,
    /// The core of the CPU that received the connection from the network.
    Cpu,
}

impl Server {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("listen", &mut self.listen, listen);
        section.read("cores", &mut self.cores, cores::cores);
        section.read("user", &mut self.user, |value| account(value).map(Some));
        section.read("group", &mut self.group, |value| account(value).map(Some));
        section.read("greeting", &mut self.greeting, greeting);
        section.read("drain_timeout", &mut self.drain_timeout, |value| {
            units::duration(value, Duration::ZERO)
        });
        section.read("steering", &mut self.steering, |value| {
            units::choice(value, &[("hash", Steering::Hash), ("cpu", Steering::Cpu)])
        });
        section.read("balance", &mut self.balance, units::switch);
    }
}

impl Server {
    /// The addresses that are listened on, with their places in `listen`.
    pub fn listeners(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        let all = self.listen.iter().copied().enumerate();
        all.filter(|(_, address)| !self.left.contains(address))
    }

    /// The addresses and those left, when a server that runs with `running` goes over to these ones;
    /// `None` if they are too many together.
    pub(super) fn listen_after(
        &self,
        running: &Self,
    ) -> Option<(Vec<SocketAddr>, Vec<SocketAddr>)> {
        let mut listen = running.listen.clone();
        let is_new = |address: &&SocketAddr| !running.listen.contains(address);
        listen.extend(self.listen.iter().filter(is_new));
        let is_gone = |address: &&SocketAddr| !self.listen.contains(address);
        let left = listen.iter().filter(is_gone).copied().collect();
        (listen.len() <= LISTENERS_MAX).then_some((listen, left))
    }
}

fn listen(value: &Value<'_>) -> Result<Vec<SocketAddr>, Wrong> {
    let Some(list) = value.get_ref().as_array() else {
        return Err(units::wrong_type(
            value,
            "a list of addresses, such as [\"0.0.0.0:21\"]",
        ));
    };
    let mut addresses = Vec::new();
    for element in list.iter() {
        let address = listen_address(element).map_err(|wrong| wrong.at(element.span()))?;
        if addresses.contains(&address) {
            return Err(Wrong::new(format!("{address} is listed twice")).at(element.span()));
        }
        addresses.push(address);
    }
    match addresses.len() {
        0 => Err(Wrong::new("no address to listen on").hint("for example [\"0.0.0.0:21\"]")),
        count if count > LISTENERS_MAX => Err(Wrong::new(format!(
            "{count} addresses are more than {LISTENERS_MAX}"
        ))),
        _ => Ok(addresses),
    }
}

pub(super) fn listen_address(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let text = units::text(value, "0.0.0.0:21")?;
    text.parse().map_err(|_| {
        let wrong = Wrong::new(format!("{text:?} is not an address with a port"));
        match text.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(ip)) => wrong.hint(format!("add the port: \"{ip}:21\"")),
            Ok(std::net::IpAddr::V6(ip)) => wrong.hint(format!("write \"[{ip}]:21\"")),
            Err(_) => wrong.hint("an IP address, not a name: \"192.0.2.1:21\" or \"[::]:21\""),
        }
    })
}

fn account(value: &Value<'_>) -> Result<String, Wrong> {
    let name = units::text(value, "ftp")?;
    let valid = !name.is_empty()
        && name.len() <= ACCOUNT_LENGTH_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':' && byte != b'/');
    if valid {
        Ok(name.to_owned())
    } else {
        Err(Wrong::new(format!("{name:?} names no account")))
    }
}

pub(super) fn greeting(value: &Value<'_>) -> Result<String, Wrong> {
    let text = units::text(value, "ringftpd ready.")?;
    if text.is_empty() || text.len() > GREETING_LENGTH_MAX {
        return Err(Wrong::new(format!(
            "{} bytes; a greeting has 1 to {GREETING_LENGTH_MAX}",
            text.len()
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::new(
            "a greeting is one line without control characters",
        ));
    }
    Ok(text.to_owned())
}

/// A configuration with more addresses than this is a mistake; each costs a socket per core.
pub const LISTENERS_MAX: usize = 64;
/// Keeps the 220 reply within the 512 bytes that old clients read at once.
pub const GREETING_LENGTH_MAX: usize = 400;
/// useradd(8): names may be up to 32 characters; directories allow more.
const ACCOUNT_LENGTH_MAX: usize = 256;
