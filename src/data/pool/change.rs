//! Ports that come and go: a core adopts ports, and lets go of those that a new configuration gives
//! to another core or to nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::deliver::accept_on;
use super::{Group, Listening, PassiveListener, Policy, Pool, PortIndex};
use crate::config::PortRange;
use crate::proto::network::Network;
use crate::sys;
use crate::uring::{self, Fd};

/// Which ports there are on one address, and which core's they are when nobody borrows.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The address that the ports are bound to.
    pub address: IpAddr,
    /// The ranges of the configuration.
    pub ranges: Vec<PortRange>,
    /// The core of each port.
    pub homes: HashMap<u16, usize>,
    /// Balancers whose connections begin with a PROXY header.
    pub balancers: Vec<Network>,
}

impl Pool {
    /// Goes on under another policy, with the same addresses and maybe more behind them, and takes over
    /// new ports for each of them. Ports that are no more in the layout, or now belong to another core,
    /// are handed out no more, and go when nobody is waited for on them.
    pub fn change(&self, policy: &Rc<Policy>, ports: Vec<Vec<PassiveListener>>) {
        let known = self.groups().len();
        for index in known..policy.layouts.len() {
            let group = Rc::new(Group::new(&self.0, index, policy));
            self.0.all.borrow_mut().push(group);
        }
        for (group, ports) in self.groups().iter().zip(ports) {
            group.change(policy, ports);
        }
    }

    /// The ports that this core has, for each address.
    pub fn held(&self) -> Vec<Vec<u16>> {
        let held = |group: &Rc<Group>| group.table.borrow().numbers().collect();
        self.groups().iter().map(held).collect()
    }

    /// Says which ports of this core other programs hold, for each address.
    pub fn set_missing(&self, missing: Vec<Vec<u16>>) {
        for (group, missing) in self.groups().iter().zip(missing) {
            group.missing.replace(missing.into_iter().collect());
        }
    }
}

impl Group {
    fn change(self: &Rc<Self>, policy: &Rc<Policy>, ports: Vec<PassiveListener>) {
        let now = Instant::now();
        self.policy.replace(Rc::clone(policy));
        // First the new ones, so that no client meets a core without ports.
        self.adopt(ports);
        let layout = &policy.layouts[self.index];
        let mut table = self.table.borrow_mut();
        table.set_rules(policy.rules, now);
        let numbers: Vec<u16> = table.numbers().collect();
        for number in numbers {
            let Some(port) = table.index_of(number) else {
                continue;
            };
            match layout.homes.get(&number) {
                Some(home) if *home == self.core => table.keep(port),
                _ => table.retire(port),
            }
        }
        table.set_ranges(&layout.ranges);
        drop(table);
        self.settle();
        self.publish();
        if self.table.borrow().is_any_leaving() {
            uring::spawn(see_off(Rc::clone(self)));
        }
    }

    /// Takes over ports, in random order, and accepts on them.
    pub(super) fn adopt(self: &Rc<Self>, mut ports: Vec<PassiveListener>) {
        self.table.borrow_mut().shuffle(&mut ports);
        let policy = Rc::clone(&*self.policy.borrow());
        let homes = &policy.layouts[self.index].homes;
        for PassiveListener { socket, number } in ports {
            let mut table = self.table.borrow_mut();
            // A reload may have dropped it while it was on its way.
            if !homes.contains_key(&number) || table.index_of(number).is_some() {
                continue;
            }
            let port = table.add(number);
            drop(table);
            let socket = Fd::new(socket);
            let accepts = uring::spawn(accept_on(Fd::clone(&socket), Rc::clone(self), port));
            let mut sockets = self.sockets.borrow_mut();
            let at = port as usize;
            if sockets.len() <= at {
                sockets.resize_with(at + 1, || None);
            }
            sockets[at] = Some(Listening { socket, accepts });
            self.missing.borrow_mut().remove(&number);
        }
        self.publish();
    }

    /// Takes a port without reservations out of this core. Its socket goes on listening. `None`, and
    /// the port stays, when no descriptor is left for the move.
    pub(super) fn take_out(&self, port: PortIndex) -> Option<PassiveListener> {
        // The wait that is being withdrawn keeps its descriptor until the ring has let go of it.
        let moved = {
            let sockets = self.sockets.borrow();
            let listening = sockets.get(port as usize)?.as_ref()?;
            sys::socket::duplicate(&listening.socket)
        };
        match moved {
            Ok(socket) => {
                let number = self.close(port);
                Some(PassiveListener { socket, number })
            }
            Err(error) => {
                tracing::warn!(%error, "a passive port cannot be moved to another core");
                None
            }
        }
    }

    /// Stops accepting on a port without reservations; its number. What waits in its queue has come
    /// too late.
    fn close(&self, port: PortIndex) -> u16 {
        let mut sockets = self.sockets.borrow_mut();
        let listening = sockets.get_mut(port as usize).and_then(Option::take);
        if let Some(listening) = listening {
            listening.accepts.abort();
            while let Ok((late, _)) = sys::socket::accept(&listening.socket) {
                sys::socket::reset(late);
            }
        }
        self.table.borrow_mut().remove(port)
    }

    /// Sends ports away that have nobody to wait for any more.
    pub(super) fn settle(&self) {
        let departed = self.table.borrow_mut().take_departed();
        if departed.is_empty() {
            return;
        }
        let policy = Rc::clone(&*self.policy.borrow());
        let mut home = HashMap::<usize, Vec<PassiveListener>>::new();
        for port in departed {
            let number = self.table.borrow().number(port);
            match policy.layouts[self.index].homes.get(&number) {
                // Of no core.
                None => drop(self.close(port)),
                Some(core) => match self.take_out(port) {
                    Some(listener) => home.entry(*core).or_default().push(listener),
                    None => self.table.borrow_mut().depart_later(port),
                },
            }
        }
        for (core, ports) in home {
            let count = ports.len();
            if self.neighbours.bring(core, self.index, ports).is_err() {
                tracing::error!(
                    core,
                    count,
                    "a core takes no passive ports; they are bound anew"
                );
            }
        }
    }
}

/// Ends the reservations of ports that leave, in time, whether anybody asks for ports or not.
async fn see_off(group: Rc<Group>) {
    while group.table.borrow().is_any_leaving() {
        tokio::time::sleep(SEE_OFF_INTERVAL).await;
        group.expire(Instant::now());
    }
}

/// How often it is looked whether leaving ports may go.
const SEE_OFF_INTERVAL: Duration = Duration::from_millis(250);
