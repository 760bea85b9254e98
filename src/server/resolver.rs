//! Looks up the names that PASV announces, on a thread of its own: the DNS may take its time.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// The addresses of names.
pub(super) type Names = Arc<HashMap<String, Ipv4Addr>>;

/// The thread that looks up names. It ends with this.
#[derive(Debug)]
pub(super) struct Resolver {
    wanted: Sender<Wanted>,
    /// All addresses, whenever one has changed, and after the first look.
    pub(super) names: Receiver<Names>,
}

#[derive(Debug)]
struct Wanted {
    names: Vec<String>,
    refresh: Duration,
}

impl Resolver {
    /// Looks up `names` now, and again every `refresh`.
    pub(super) fn start(names: Vec<String>, refresh: Duration) -> io::Result<Self> {
        let (wanted, orders) = mpsc::channel();
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || work(Wanted { names, refresh }, &orders, &sender))?;
        Ok(Self {
            wanted,
            names: receiver,
        })
    }

    /// Looks up these from now on.
    pub(super) fn set(&self, names: Vec<String>, refresh: Duration) {
        // It ends with the server only.
        let _ = self.wanted.send(Wanted { names, refresh });
    }

    /// Waits for the first look, so that the first clients find the address, but not for long.
    pub(super) fn first(&self) -> Option<Names> {
        self.names.recv_timeout(FIRST_LOOK_MAX).ok()
    }
}

fn work(mut wanted: Wanted, orders: &Receiver<Wanted>, changes: &Sender<Names>) {
    let mut known = HashMap::new();
    let mut is_first = true;
    loop {
        let before = known.clone();
        known.retain(|name, _| wanted.names.contains(name));
        for name in &wanted.names {
            look_up(name, &mut known);
        }
        let has_changed = known != before;
        if (has_changed || is_first) && changes.send(Arc::new(known.clone())).is_err() {
            return;
        }
        is_first = false;
        // Without names there is nothing to do until there are some.
        let pause = match wanted.names.is_empty() {
            true => Duration::MAX,
            false => wanted.refresh,
        };
        match orders.recv_timeout(pause) {
            Ok(new) => wanted = new,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What cannot be looked up keeps the address that it had.
fn look_up(name: &str, known: &mut HashMap<String, Ipv4Addr>) {
    let found = (name, 0).to_socket_addrs().map(|mut addresses| {
        addresses.find_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
    });
    match found {
        Ok(Some(address)) => {
            if known.insert(name.to_owned(), address) != Some(address) {
                tracing::info!(name, %address, "the address to announce");
            }
        }
        Ok(None) => tracing::error!(name, "the name to announce has no IPv4 address"),
        Err(error) => {
            let kept = known.get(name).map(ToString::to_string);
            tracing::error!(name, %error, kept, "the name to announce cannot be looked up");
        }
    }
}

/// How long the start waits for the first look.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(3);
