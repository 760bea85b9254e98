//! Orders from standard input, and the answers.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::cases::{Done, Work};
use crate::client::fleet::Counts;
use crate::client::latency::{Latencies, Summary};
use crate::client::{Doing, Error, Result};

/// Says that it is ready, and obeys until the end.
pub(crate) fn obey(mut work: Work) -> Result<()> {
    say("ready")?;
    let mut orders = Orders::default();
    let mut latencies = Latencies::with_capacity(LATENCIES);
    while let Some(order) = next(&mut orders, &mut work)? {
        match order.split_once(' ').unwrap_or((&order, "")) {
            ("warm", "") => {
                let done = work.step()?;
                say(&json!({ "units": done.units }).to_string())?;
            }
            ("go", seconds) => {
                let seconds: f64 = seconds.parse().doing("go")?;
                let time = Duration::try_from_secs_f64(seconds).doing("go")?;
                let answer = match work.has_no_steps() {
                    true => stand(&mut orders, &mut work, time)?,
                    false => Some(go(&mut work, &mut latencies, time)?),
                };
                let Some(answer) = answer else { break };
                say(&answer.to_string())?;
            }
            ("end", "") => {
                work.end()?;
                return say(&json!({ "ended": true }).to_string());
            }
            _ => return Err(Error::new(format!("unknown order: {order}"))),
        }
    }
    Ok(())
}

/// Waits for an order while the work goes on; `None` at the end of standard input.
fn next(orders: &mut Orders, work: &mut Work) -> Result<Option<String>> {
    loop {
        if let Some(line) = orders.take() {
            return Ok(Some(line));
        }
        if orders.wait(work.tick())? == State::Ended {
            return Ok(None);
        }
        work.go_on()?;
    }
}

/// Steps until the time is over.
fn go(work: &mut Work, latencies: &mut Latencies, time: Duration) -> Result<Value> {
    let before = work.counts();
    let mut done = Done::default();
    let start = Instant::now();
    let mut now = start;
    let elapsed = loop {
        let step = work.step()?;
        let end = Instant::now();
        if work.is_timed {
            latencies.record(end - now);
        }
        done.units += step.units;
        done.bytes += step.bytes;
        now = end;
        if end - start >= time {
            break end - start;
        }
        if let Some(interval) = work.interval {
            thread::sleep(interval);
            now = Instant::now();
        }
    };
    let counts = work.counts().since(&before);
    Ok(answer(done, elapsed, counts, latencies.summary()))
}

/// Lets that time pass for work without steps; `None` at the end of standard input.
fn stand(orders: &mut Orders, work: &mut Work, time: Duration) -> Result<Option<Value>> {
    let (before, counts) = (work.so_far(), work.counts());
    let start = Instant::now();
    let elapsed = loop {
        let elapsed = start.elapsed();
        if elapsed >= time {
            break elapsed;
        }
        let most = work
            .tick()
            .map_or(time - elapsed, |tick| tick.min(time - elapsed));
        if orders.wait(Some(most))? == State::Ended {
            return Ok(None);
        }
        work.go_on()?;
    };
    let so_far = work.so_far();
    let done = Done {
        units: so_far.units - before.units,
        bytes: so_far.bytes - before.bytes,
    };
    let counts = work.counts().since(&counts);
    Ok(Some(answer(done, elapsed, counts, None)))
}

fn answer(done: Done, elapsed: Duration, counts: Counts, latency: Option<Summary>) -> Value {
    json!({
        "units": done.units,
        "bytes": done.bytes,
        "seconds": elapsed.as_secs_f64(),
        "refused": counts.refused,
        "asked": counts.asked,
        "latency": latency.map(|latency| json!({
            "count": latency.count,
            "p50": latency.p50,
            "p99": latency.p99,
            "p999": latency.p999,
            "max": latency.max,
        })),
        "password_asked": counts.password_asked,
        "handshakes": counts.protocol.map(|(version, cipher)| json!({
            "full": counts.full,
            "resumed": counts.resumed,
            "version": version,
            "cipher": cipher,
        })),
    })
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").doing("standard output")?;
    out.flush().doing("standard output")
}

/// Lines from standard input, which can be waited for with a limit.
#[derive(Debug, Default)]
struct Orders {
    received: Vec<u8>,
    /// Nothing more will come.
    ended: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    Ended,
}

impl Orders {
    /// A line that is there.
    fn take(&mut self) -> Option<String> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.received.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// Waits for more, for so long at most. The end is told when all lines before it are taken.
    fn wait(&mut self, most: Option<Duration>) -> Result<State> {
        let doing = "standard input";
        if self.ended {
            if self.received.contains(&b'\n') {
                thread::sleep(most.unwrap_or_default());
                return Ok(State::Open);
            }
            return Ok(State::Ended);
        }
        let stdin = io::stdin();
        let timeout = match most {
            // Rounded up, so that a rest of less than a millisecond is no loop.
            Some(most) => PollTimeout::try_from(most + Duration::from_micros(999)).doing(doing)?,
            None => PollTimeout::NONE,
        };
        let mut watched = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(State::Open),
            Ok(_) => {}
            Err(error) => return Err(error).doing(doing),
        }
        let mut part = [0; 512];
        // Not by Stdin, whose buffer poll does not see.
        match nix::unistd::read(&stdin, &mut part).doing(doing)? {
            0 => self.ended = true,
            count => self.received.extend_from_slice(&part[..count]),
        }
        Ok(State::Open)
    }
}

/// Room for a minute of probes.
const LATENCIES: usize = 1 << 20;
