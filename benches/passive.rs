//! What a passive data connection costs the server: CPU time for a transfer of 4 KiB, from the
//! request to the close of the connection.
//!
//! Guards: a pool of ports that always listen costs less than binding a port for each PASV, as other
//! servers do, with one session and with 32. So there is one way, the pool.
//!
//! The time shown is not that on the clock but the CPU time of the serving thread
//! (/proc/self/task/TID/schedstat), which the clients, on another CPU, do not add to.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringftpd::config::{PeerCheck, PortRange};
use ringftpd::data::lending;
use ringftpd::data::pool::{Layout, PassiveListener, Policy, Pool, Request};
use ringftpd::data::table::Rules;
use ringftpd::sys::affinity;
use ringftpd::sys::socket::{self, ListenOptions};
use ringftpd::uring::{self, Fd, RingOptions};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const OPTIONS: ListenOptions = ListenOptions {
    reuse_port: false,
    backlog: 64,
};

#[derive(Clone, Copy)]
enum Way {
    /// Every port listens from start to end.
    Pooled,
    /// A port is bound for each request, and closed behind it.
    Classic,
}

/// A server for so many sessions, with clients that each do a number of transfers at a time.
struct Stage {
    server: i32,
    orders: Vec<mpsc::Sender<u64>>,
    done: mpsc::Receiver<()>,
}

impl Stage {
    fn new(way: Way, ports: PortRange, sessions: usize) -> Self {
        let listener = TcpListener::bind((HERE, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // What fails here fails on a machine with one CPU, where there is nothing to keep apart.
            let _ = affinity::pin(0);
            sender
                .send(nix::unistd::gettid().as_raw())
                .expect("the stage");
            let serve = move || serve(way, ports, listener, sessions);
            uring::start(&RingOptions::default(), serve).expect("a ring");
        });
        let server = receiver.recv().expect("the server's thread");
        let (finished, done) = mpsc::channel();
        let orders = (0..sessions)
            .map(|_| client(address, finished.clone()))
            .collect();
        Self {
            server,
            orders,
            done,
        }
    }

    /// The CPU time of the server for `transfers`.
    fn run(&self, transfers: u64) -> Duration {
        let each = transfers.div_ceil(self.orders.len() as u64);
        let before = self.cpu_time();
        for order in &self.orders {
            order.send(each).expect("a client");
        }
        for _ in &self.orders {
            self.done.recv().expect("a client");
        }
        let used = self.cpu_time() - before;
        used.mul_f64(transfers as f64 / (each * self.orders.len() as u64) as f64)
    }

    /// proc(5), schedstat: nanoseconds on a CPU.
    fn cpu_time(&self) -> Duration {
        let path = format!("/proc/self/task/{}/schedstat", self.server);
        let text = fs::read_to_string(path).expect("/proc");
        let first = text.split_whitespace().next().expect("three numbers");
        Duration::from_nanos(first.parse().expect("nanoseconds"))
    }
}

/// A client: for each transfer it asks, reads the port, connects and reads to the end.
fn client(server: SocketAddr, finished: mpsc::Sender<()>) -> mpsc::Sender<u64> {
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        let _ = affinity::pin(1);
        let mut control = TcpStream::connect(server).expect("a connection");
        control.set_nodelay(true).expect("TCP_NODELAY");
        let mut content = Vec::new();
        for count in orders {
            for _ in 0..count {
                control.write_all(b"P").expect("a request");
                let mut port = [0; 2];
                control.read_exact(&mut port).expect("a port");
                let port = u16::from_be_bytes(port);
                let mut data = TcpStream::connect((HERE, port)).expect("a data connection");
                content.clear();
                data.read_to_end(&mut content).expect("the content");
                assert_eq!(content.len(), CONTENT.len());
            }
            finished.send(()).expect("the stage");
        }
    });
    sender
}

async fn serve(way: Way, ports: PortRange, listener: TcpListener, sessions: usize) {
    let listener: Fd = Rc::new(OwnedFd::from(listener));
    let pool = match way {
        Way::Pooled => Some(pool(ports)),
        Way::Classic => None,
    };
    for _ in 0..sessions {
        let (control, _) = uring::accept(&listener).await.expect("a client");
        let (control, pool) = (Rc::new(control), pool.clone());
        uring::spawn(async move {
            match pool {
                Some(pool) => pooled(control, pool).await,
                None => classic(control, ports).await,
            }
        });
    }
    std::future::pending::<()>().await;
}

fn pool(range: PortRange) -> Pool {
    let numbers = range.first()..=range.last();
    let policy = Policy {
        rules: Rules {
            timeout: Duration::from_secs(30),
            per_client_max: 64,
            peer_check: PeerCheck::Strict,
        },
        borrow: false,
        fxp: Vec::new(),
        layouts: vec![Layout {
            address: HERE,
            ranges: vec![range],
            homes: numbers
                .clone()
                .map(|port| (port, 0))
                .collect::<HashMap<_, _>>(),
            balancers: Vec::new(),
        }],
    };
    let listen = |number| PassiveListener {
        socket: socket::listen(SocketAddr::new(HERE, number), &OPTIONS).expect("a free port"),
        number,
    };
    let (neighbours, mut mailboxes) = lending::connect(1, 1);
    let mailbox = mailboxes.pop().expect("one core");
    let ports = vec![numbers.map(listen).collect()];
    Pool::start(0, ports, &Rc::new(policy), neighbours, mailbox)
}

async fn pooled(control: Fd, pool: Pool) {
    let request = Request {
        pool: 0,
        client: HERE,
        local: Some(HERE),
        extended: false,
    };
    while asked(&control).await {
        let reservation = pool.reserve(request).await.expect("a port");
        tell(&control, reservation.port());
        let data = reservation.connection().await.expect("the client");
        socket::send(&data, &CONTENT).expect("an empty socket buffer");
    }
}

/// As servers do that have no pool: the next port of the range that can be bound.
async fn classic(control: Fd, ports: PortRange) {
    let mut next = ports.first();
    while asked(&control).await {
        let (listener, port) = loop {
            next = match next {
                port if port == ports.last() => ports.first(),
                port => port + 1,
            };
            if let Ok(listener) = socket::listen(SocketAddr::new(HERE, next), &OPTIONS) {
                break (Rc::new(listener), next);
            }
        };
        tell(&control, port);
        let (data, peer) = uring::accept(&listener).await.expect("the client");
        assert_eq!(peer.ip(), HERE);
        drop(listener);
        socket::send(&data, &CONTENT).expect("an empty socket buffer");
    }
}

async fn asked(control: &Fd) -> bool {
    let (received, _) = uring::receive(control, Vec::with_capacity(16)).await;
    received.is_ok_and(|count| count > 0)
}

fn tell(control: &Fd, port: u16) {
    socket::send(control, &port.to_be_bytes()).expect("an empty socket buffer");
}

/// Of each stage.
const PORTS: u16 = 512;

const CONTENT: [u8; 4096] = [b'x'; 4096];

fn data_connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("CPU time of a passive transfer of 4 KiB");
    let mut first = 21_300;
    for sessions in [1, 32] {
        for (name, way) in [("pooled", Way::Pooled), ("classic", Way::Classic)] {
            // A stage keeps its ports until the program ends.
            let ports = PortRange::new(first, first + PORTS - 1).expect("a range");
            first += PORTS;
            let stage = Stage::new(way, ports, sessions);
            group.bench_function(BenchmarkId::new(name, sessions), |bencher| {
                bencher.iter_custom(|transfers| stage.run(transfers));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = data_connections
}
criterion_main!(benches);
