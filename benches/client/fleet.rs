//! Sessions that all do the same at the same time, in lock step: each request goes out on all of
//! them before the first reply is waited for.

use std::io::Write;

use nix::sys::socket::MsgFlags;

use super::bulk::{self, Transfer};
use super::control::Control;
use super::data::{self, Data, DataOptions, Ports, Via, wrong_count};
use super::tls::Protocol;
use super::{Doing, Error, Result, Target, Tls, Wire};

/// What happened beside the work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Requests for data connections.
    pub(crate) asked: u64,
    /// Those that were answered by 425, and repeated.
    pub(crate) refused: u64,
    /// Whether the server asked for a password.
    pub(crate) password_asked: bool,
    /// Handshakes of TLS that resumed no session, and those that did.
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    /// What the last one came to.
    pub(crate) protocol: Option<Protocol>,
}

impl Counts {
    /// What has come on top of what was there before.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            asked: self.asked - before.asked,
            refused: self.refused - before.refused,
            full: self.full - before.full,
            resumed: self.resumed - before.resumed,
            ..*self
        }
    }

    fn shaken(&mut self, (resumed, protocol): (bool, Protocol)) {
        match resumed {
            true => self.resumed += 1,
            false => self.full += 1,
        }
        self.protocol = Some(protocol);
    }
}

/// How a download is received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Download {
    /// `None`: whatever comes.
    pub(crate) size: Option<u64>,
    /// SO_RCVLOWAT of a big one.
    pub(crate) lowat: u64,
}

/// Sessions that are logged in.
#[derive(Debug)]
pub(crate) struct Fleet {
    target: Target,
    via: Via,
    options: DataOptions,
    controls: Vec<Control>,
    transfers: Vec<Transfer>,
    pending: Vec<Data>,
    ports: Ports,
    sink: Vec<u8>,
    pub(crate) counts: Counts,
}

impl Fleet {
    /// Logs in so many, and sets TYPE I.
    pub(crate) fn log_in(target: &Target, count: usize, via: Via) -> Result<Self> {
        let mut counts = Counts::default();
        let mut controls = Vec::with_capacity(count);
        while controls.len() < count {
            let some = LOGINS_AT_ONCE.min(count - controls.len());
            let mut some = log_in(target, some, &mut counts)?;
            ask_all(&mut some, b"TYPE I\r\n", &[200])?;
            if target.tls.is_some() {
                ask_all(&mut some, b"PBSZ 0\r\n", &[200])?;
                ask_all(&mut some, b"PROT P\r\n", &[200])?;
            }
            controls.append(&mut some);
        }
        Ok(Self {
            target: target.clone(),
            via,
            options: DataOptions {
                deadline: target.deadline,
                receive_buffer: None,
            },
            controls,
            transfers: Vec::with_capacity(count),
            pending: Vec::with_capacity(count),
            ports: Ports::new(),
            // Never touched, so it takes addresses and no memory.
            sink: vec![0; SINK_BYTES],
            counts,
        })
    }

    /// Has data connections take so little into their buffers.
    pub(crate) fn with_receive_buffer(mut self, bytes: usize) -> Self {
        self.options.receive_buffer = Some(bytes);
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.controls.len()
    }

    /// A line, and a reply with one of these codes, on each.
    pub(crate) fn command(&mut self, line: &[u8], codes: &[u16]) -> Result<()> {
        ask_all(&mut self.controls, line, codes)
    }

    /// A line on the first session alone; returns all of the reply.
    pub(crate) fn ask_first(&mut self, line: &[u8], codes: &[u16]) -> Result<Vec<u8>> {
        let control = self.controls.first_mut();
        let control = control.ok_or_else(|| Error::new("no session"))?;
        Ok(control.ask(line, codes)?.text.to_vec())
    }

    /// One transfer on each; returns the bytes of all.
    pub(crate) fn download(&mut self, line: &[u8], download: Download) -> Result<u64> {
        self.start(&[line])?;
        let size = download.size.unwrap_or(u64::MAX);
        if download.size.is_some_and(|size| size >= BULK_BYTES) {
            let deadline = self.target.deadline;
            let (transfers, sink) = (&mut self.transfers, &mut self.sink);
            bulk::receive(transfers, size, download.lowat, sink, deadline)?;
        } else {
            for transfer in &mut self.transfers {
                transfer.moved = drain(transfer, &mut self.sink)?;
            }
        }
        let mut bytes = 0;
        for (transfer, control) in self.transfers.iter().zip(&mut self.controls) {
            if download.size.is_some() && transfer.moved != size {
                return Err(wrong_count(control, line, transfer.moved, size));
            }
            control.expect(line, COMPLETE)?;
            bytes += transfer.moved;
        }
        Ok(bytes)
    }

    /// One transfer of `size` bytes on each, with a line for each, from `content` again and again.
    pub(crate) fn upload(&mut self, lines: &[Vec<u8>], content: &[u8], size: u64) -> Result<u64> {
        self.start(lines)?;
        if size >= BULK_BYTES {
            bulk::send_all(&mut self.transfers, size, content, self.target.deadline)?;
        } else {
            let content = content
                .get(..size as usize)
                .ok_or_else(|| Error::new("nothing to send"))?;
            for transfer in &mut self.transfers {
                if let Some(wire) = &mut transfer.wire {
                    wire.write_all(content).doing("sending")?;
                }
                transfer.close()?;
            }
        }
        for (line, control) in lines.iter().cycle().zip(&mut self.controls) {
            control.expect(line, COMPLETE)?;
        }
        Ok(size * self.controls.len() as u64)
    }

    /// Begins one transfer on each, with these lines in turn: data connections, the command, and
    /// the first reply to it.
    pub(crate) fn start(&mut self, lines: &[impl AsRef<[u8]>]) -> Result<()> {
        self.pending.clear();
        self.transfers.clear();
        match self.via.is_passive() {
            true => self.passive()?,
            false => self.active()?,
        }
        for (line, control) in lines.iter().cycle().zip(&mut self.controls) {
            control.send(line.as_ref())?;
        }
        let server = self.target.address.ip();
        let lines = lines.iter().cycle();
        for ((data, control), line) in self.pending.drain(..).zip(&mut self.controls).zip(lines) {
            control.expect(line.as_ref(), PRELIMINARY)?;
            self.transfers.push(Transfer {
                wire: Some(Wire::new(data.stream(server)?)),
                moved: 0,
            });
        }
        if self.target.tls.is_some() {
            // After the replies, as clients do.
            self.protect()?;
        }
        Ok(())
    }

    /// A handshake on each data connection.
    fn protect(&mut self) -> Result<()> {
        for (control, transfer) in self.controls.iter().zip(&mut self.transfers) {
            if let (Some(tls), Some(wire)) = (control.tls(), &mut transfer.wire) {
                wire.begin_tls(tls).doing("data connection")?;
            }
        }
        for wire in self.transfers.iter_mut().filter_map(|t| t.wire.as_mut()) {
            let shaken = wire.shake_hands().doing("data connection")?;
            self.counts.shaken(shaken);
        }
        Ok(())
    }

    /// The sessions, each with the transfer that [`Fleet::start`] has begun.
    pub(crate) fn running(&mut self) -> impl Iterator<Item = (&mut Control, &mut Transfer)> {
        self.controls.iter_mut().zip(&mut self.transfers)
    }

    /// One of [`Fleet::running`].
    pub(crate) fn session(&mut self, index: usize) -> (&mut Control, &mut Transfer) {
        (&mut self.controls[index], &mut self.transfers[index])
    }

    /// Begins one more transfer on one session alone, whose last one has ended.
    pub(crate) fn restart(&mut self, index: usize, line: &[u8]) -> Result<()> {
        let control = &mut self.controls[index];
        control.send(self.via.passive_line())?;
        let (stream, refused) = data::passive(control, self.via, self.options)?;
        self.counts.asked += 1 + refused;
        self.counts.refused += refused;
        control.ask(line, PRELIMINARY)?;
        let mut wire = Wire::new(stream);
        if let Some(tls) = control.tls() {
            wire.begin_tls(tls)?;
            self.counts.shaken(wire.shake_hands()?);
        }
        self.transfers[index].wire = Some(wire);
        Ok(())
    }

    fn passive(&mut self) -> Result<()> {
        for control in &mut self.controls {
            control.send(self.via.passive_line())?;
        }
        for control in &mut self.controls {
            let (stream, refused) = data::passive(control, self.via, self.options)?;
            self.counts.asked += 1 + refused;
            self.counts.refused += refused;
            self.pending.push(Data::Connected(stream));
        }
        Ok(())
    }

    fn active(&mut self) -> Result<()> {
        for control in &mut self.controls {
            let here = control.local()?;
            let listener = self.ports.listen(here.ip(), self.options)?;
            let address = listener.local_addr().doing("listening")?;
            control.send(self.via.active_line(address)?.as_bytes())?;
            self.pending.push(Data::Listening(listener));
            self.counts.asked += 1;
        }
        for control in &mut self.controls {
            control.expect(self.via.name().as_bytes(), &[200])?;
        }
        Ok(())
    }

    /// QUIT on each, its reply, and the end of the connection.
    pub(crate) fn quit(mut self) -> Result<()> {
        for some in self.controls.chunks_mut(LOGINS_AT_ONCE) {
            quit(some)?;
        }
        Ok(())
    }
}

/// So many sessions that log in and quit.
pub(crate) fn login_and_quit(target: &Target, count: usize, counts: &mut Counts) -> Result<()> {
    quit(&mut log_in(target, count, counts)?)
}

fn log_in(target: &Target, count: usize, counts: &mut Counts) -> Result<Vec<Control>> {
    let mut controls = Vec::with_capacity(count);
    for _ in 0..count {
        controls.push(Control::connect(target)?);
    }
    for control in &mut controls {
        control.expect(b"greeting", &[220])?;
    }
    if let Some(tls) = &target.tls {
        protect(&mut controls, tls, counts)?;
    }
    let user = format!("USER {}\r\n", target.user);
    for control in &mut controls {
        control.send(user.as_bytes())?;
    }
    let mut asked = 0;
    for control in &mut controls {
        // RFC 959 §5.4: 230 if there is no need for a password.
        asked += usize::from(control.expect(user.as_bytes(), &[331, 230])?.code == 331);
    }
    if asked == 0 {
        return Ok(controls);
    }
    if asked != count {
        return Err(Error::new("some sessions need a password, some do not"));
    }
    counts.password_asked = true;
    let password = format!("PASS {}\r\n", target.password);
    ask_all(&mut controls, password.as_bytes(), &[230])?;
    Ok(controls)
}

/// RFC 4217 §4: TLS on control connections.
fn protect(controls: &mut [Control], tls: &Tls, counts: &mut Counts) -> Result<()> {
    ask_all(controls, b"AUTH TLS\r\n", &[234])?;
    for control in &mut *controls {
        control.begin_tls(tls)?;
    }
    for control in controls {
        counts.shaken(control.shake_hands()?);
    }
    Ok(())
}

fn quit(controls: &mut [Control]) -> Result<()> {
    ask_all(controls, b"QUIT\r\n", &[221])?;
    for control in controls {
        control.end()?;
    }
    Ok(())
}

fn ask_all(controls: &mut [Control], line: &[u8], codes: &[u16]) -> Result<()> {
    for control in &mut *controls {
        control.send(line)?;
    }
    for control in controls {
        control.expect(line, codes)?;
    }
    Ok(())
}

/// Receives to the end; returns how many bytes that were.
fn drain(transfer: &mut Transfer, sink: &mut [u8]) -> Result<u64> {
    let wire = transfer.wire.as_mut();
    let wire = wire.ok_or_else(|| Error::new("no data connection"))?;
    let mut bytes = 0;
    while let Some(count @ 1..) = wire.discard(sink, MsgFlags::empty())? {
        bytes += count as u64;
    }
    transfer.close()?;
    Ok(bytes)
}

/// RFC 959 §5.4, RETR, STOR and LIST.
pub(crate) const PRELIMINARY: &[u16] = &[125, 150];
pub(crate) const COMPLETE: &[u16] = &[226, 250];

/// Below, a transfer is over at once, and one system call that waits is cheaper than two.
const BULK_BYTES: u64 = 1 << 20;

/// More than the kernel keeps for one socket.
const SINK_BYTES: usize = 64 << 20;

/// Servers have a bounded queue of connections that they have not accepted.
const LOGINS_AT_ONCE: usize = 32;
