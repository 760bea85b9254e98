//! Clients that take their time.

use std::time::Instant;

use nix::sys::socket::MsgFlags;

use super::control::Control;
use super::data::wrong_count;
use super::fleet::{COMPLETE, Fleet};
use super::{Error, Result, Target, Via};

/// Downloads that are each read at so many bytes per second, one after the other.
#[derive(Debug)]
pub(crate) struct Slow {
    fleet: Fleet,
    line: Vec<u8>,
    size: u64,
    rate: u64,
    start: Instant,
    /// Of each, since the start.
    taken: Vec<u64>,
    sink: Vec<u8>,
    /// Downloads that came to their end.
    pub(crate) ended: u64,
    pub(crate) bytes: u64,
}

impl Slow {
    /// Logs in and begins the downloads.
    pub(crate) fn start(
        target: &Target,
        count: usize,
        line: Vec<u8>,
        size: u64,
        rate: u64,
    ) -> Result<Self> {
        let fleet = Fleet::log_in(target, count, Via::Epsv)?;
        let mut fleet = fleet.with_receive_buffer(RECEIVE_BUFFER);
        fleet.start(&[&line])?;
        Ok(Self {
            fleet,
            line,
            size,
            rate,
            start: Instant::now(),
            taken: vec![0; count],
            sink: vec![0; SINK_BYTES],
            ended: 0,
            bytes: 0,
        })
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Takes from each what it is due.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        let due = (self.rate as f64 * self.start.elapsed().as_secs_f64()) as u64;
        for index in 0..self.taken.len() {
            // What a server could not deliver for a second is not made up for: that were not slow.
            let taken = &mut self.taken[index];
            *taken = (*taken).max(due.saturating_sub(self.rate));
            if *taken < due && self.take(index, due)? {
                self.ended += 1;
                self.fleet.restart(index, &self.line)?;
            }
        }
        Ok(())
    }

    /// Whether the download has ended.
    fn take(&mut self, index: usize, due: u64) -> Result<bool> {
        let (control, transfer) = self.fleet.session(index);
        while self.taken[index] < due {
            let Some(wire) = &mut transfer.wire else {
                return Err(Error::new("no data connection"));
            };
            let most = usize::try_from(due - self.taken[index]).unwrap_or(usize::MAX);
            let most = most.min(self.sink.len());
            let part = &mut self.sink[..most];
            match wire.discard(part, MsgFlags::MSG_DONTWAIT)? {
                None => break,
                Some(0) => {
                    transfer.close()?;
                    if transfer.moved != self.size {
                        return Err(wrong_count(control, &self.line, transfer.moved, self.size));
                    }
                    control.expect(&self.line, COMPLETE)?;
                    transfer.moved = 0;
                    return Ok(true);
                }
                Some(count) => {
                    transfer.moved += count as u64;
                    self.taken[index] += count as u64;
                    self.bytes += count as u64;
                }
            }
        }
        Ok(false)
    }

    /// Breaks the downloads off and quits.
    pub(crate) fn quit(mut self) -> Result<()> {
        for (control, transfer) in self.fleet.running() {
            transfer.wire = None;
            broken_off(control, &self.line)?;
        }
        self.fleet.quit()
    }
}

/// RFC 959 §5.4: 426 or 451 for a transfer whose connection is gone; 226 if the server has handed
/// its last byte to the kernel before.
fn broken_off(control: &mut Control, line: &[u8]) -> Result<()> {
    control
        .expect(line, &[226, 250, 425, 426, 450, 451, 551])
        .map(drop)
}

/// So small that a server soon has to wait.
const RECEIVE_BUFFER: usize = 32 << 10;

const SINK_BYTES: usize = 1 << 20;
