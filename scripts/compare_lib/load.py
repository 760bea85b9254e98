"""The load: an FTP client that believes nothing, and the cases that it drives.

A case has `prepare(target)`, which returns what a step needs, `step(target, state)`, which returns
the units of work done, and `finish(state)`. Nothing here times out: the caller sets an alarm.
"""

import hashlib
import mmap
import re
import select
import socket
from pathlib import Path

from . import meter
from .host import BIG, MANY, SMALL

# Nothing is ever written there: MSG_TRUNC makes the kernel drop the bytes after counting them.
_SINK = mmap.mmap(-1, 16 << 20)
_USER, _PASS = "USER anonymous", "PASS compare@"


class Wrong(Exception):
    """A server did not do what it should."""


class Refused(Wrong):
    """A server has no port for a data connection at the moment."""


class Session:
    """A control connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    @classmethod
    def logged_in(cls, target):
        session = cls(target.port)
        session.expect("220")
        session.send(_USER)
        if session.asked_password(target):
            session.command(_PASS, "230")
        session.command("TYPE I", "200")
        return session

    def send(self, line):
        if self.buffer:
            raise Wrong(f"said unasked, before {line}: {self.buffer[:80]!r}")
        self.socket.sendall(line.encode() + b"\r\n")

    def expect(self, *codes):
        """The next reply, which must have one of these codes."""
        text = self._reply()
        if text[:3] not in codes:
            raise Wrong(f"{'/'.join(codes)} expected, got: {text[:100]!r}")
        return text

    def command(self, line, *codes):
        self.send(line)
        return self.expect(*codes)

    def asked_password(self, target):
        """Takes the reply to USER. Clients send PASS only if asked, and so do we."""
        asked = self.expect("331", "230")[:3] == "331"
        target.asks_password = target.asks_password and asked
        return asked

    def expect_end(self):
        if self.buffer or self.socket.recv(1):
            raise Wrong("more after the reply to QUIT")
        self.socket.close()

    def _reply(self):
        while True:
            first = self.buffer.find(b"\r\n")
            if first >= 0:
                head = self.buffer[:4]
                if not re.fullmatch(rb"[1-5]\d\d[ -]", head):
                    raise Wrong(f"not a reply: {self.buffer[:80]!r}")
                end = first
                if head[3:] == b"-":
                    last = self.buffer.find(b"\r\n" + head[:3] + b" ", first)
                    end = self.buffer.find(b"\r\n", last + 2) if last >= 0 else -1
                if end >= 0:
                    reply, self.buffer = self.buffer[:end], self.buffer[end + 2:]
                    return reply.decode("latin-1")
            received = self.socket.recv(4096)
            if not received:
                raise Wrong("control connection closed")
            self.buffer += received


def ask_passive(session, verb):
    session.send(verb)


def connect_passive(session, verb):
    """Takes the reply to EPSV or PASV and connects."""
    if verb == "EPSV":
        reply = session.expect("229", "425")
        found = re.search(r"\(\|\|\|(\d+)\|\)", reply)
    else:
        reply = session.expect("227", "425")
        found = re.search(r"127,0,0,1,(\d+),(\d+)", reply)
    if reply[:3] == "425":
        raise Refused(f"to {verb}: {reply}")
    if not found:
        raise Wrong(f"no address of ours in {reply!r}")
    port = int(found[1]) if verb == "EPSV" else int(found[1]) * 256 + int(found[2])
    return socket.create_connection(("127.0.0.1", port))


def receive(data, take=lambda piece: None):
    """Reads a data connection to its end; returns the count of bytes."""
    count = 0
    with data:
        while piece := data.recv(1 << 20):
            count += len(piece)
            take(piece)
    return count


def download(session, command, take=lambda piece: None):
    ask_passive(session, "EPSV")
    data = connect_passive(session, "EPSV")
    session.send(command)
    count = receive(data, take)
    session.expect("150", "125")
    session.expect("226")
    return count


class _Sessions:
    """Cases on a number of open sessions."""

    def __init__(self, count):
        self.count = count

    def prepare(self, target):
        return [Session.logged_in(target) for _ in range(self.count)]

    def finish(self, sessions):
        for session in sessions:
            session.command("QUIT", "221")
            session.expect_end()


class Login:
    """Connect, log in, quit; all clients of a step at the same time."""

    count = 32

    def prepare(self, target):
        return None

    def step(self, target, _):
        sessions = [Session(target.port) for _ in range(self.count)]
        for session in sessions:
            session.expect("220")
        for session in sessions:
            session.send(_USER)
        asked = [session for session in sessions if session.asked_password(target)]
        for line, code, addressed in ((_PASS, "230", asked), ("QUIT", "221", sessions)):
            for session in addressed:
                session.send(line)
            for session in addressed:
                session.expect(code)
        for session in sessions:
            session.expect_end()
        return self.count

    def finish(self, _):
        pass


class Noop(_Sessions):
    def step(self, target, sessions):
        for session in sessions:
            session.send("NOOP")
        for session in sessions:
            session.expect("200")
        return self.count


class Small(_Sessions):
    """A small file on each session."""

    def __init__(self, count, verb):
        super().__init__(count)
        self.verb = verb

    def step(self, target, sessions):
        for session in sessions:
            ask_passive(session, self.verb)
        data = [self._connect(target, session) for session in sessions]
        for session in sessions:
            session.send(f"RETR {SMALL[0]}")
        for session, connection in zip(sessions, data):
            if receive(connection) != SMALL[1]:
                raise Wrong(f"{SMALL[0]} with another size")
            session.expect("150", "125")
            session.expect("226")
        return self.count

    def _connect(self, target, session):
        """425 means: try again. Pure-FTPd says it when two of its processes choose the same port
        at the same time. We do, and tell how often that was."""
        target.passive_asked += 1
        for _ in range(4):
            try:
                return connect_passive(session, self.verb)
            except Refused:
                target.passive_refused += 1
                ask_passive(session, self.verb)
        return connect_passive(session, self.verb)


class Bulk(_Sessions):
    """The big file on each session; the client drops the bytes in the kernel, in large pieces."""

    def step(self, target, sessions):
        for session in sessions:
            ask_passive(session, "EPSV")
        data = {}
        poll = select.epoll()
        for session in sessions:
            connection = connect_passive(session, "EPSV")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 256 << 10)
            connection.setblocking(False)
            data[connection.fileno()] = [connection, 0]
            poll.register(connection.fileno(), select.EPOLLIN)
        for session in sessions:
            session.send(f"RETR {BIG[0]}")
        while data:
            for descriptor, _ in poll.poll():
                entry = data[descriptor]
                try:
                    count = entry[0].recv_into(_SINK, len(_SINK), socket.MSG_TRUNC)
                except BlockingIOError:
                    continue
                entry[1] += count
                if count == 0:
                    poll.unregister(descriptor)
                    data.pop(descriptor)[0].close()
                    if entry[1] != BIG[1]:
                        raise Wrong(f"{entry[1]} bytes of {BIG[1]}")
        poll.close()
        for session in sessions:
            session.expect("150", "125")
            session.expect("226")
        return self.count * BIG[1] / (1 << 30)


class Listing(_Sessions):
    """A large directory."""

    def __init__(self, verb):
        super().__init__(1)
        self.verb = verb

    def prepare(self, target):
        sessions = super().prepare(target)
        sessions[0].command(f"CWD /{MANY[0]}", "250")
        return sessions

    def step(self, target, sessions):
        count = download(sessions[0], self.verb)
        if count != target.listing_bytes[self.verb]:
            raise Wrong(f"{count} bytes, {target.listing_bytes[self.verb]} before")
        return 1


def idle_bytes(target, count=200):
    """Memory per idle session: how much all processes grow by that many logins."""
    Login().step(target, None)
    meter.settle(target.account)
    before = meter.memory(target.account)
    sessions = [Session.logged_in(target) for _ in range(count)]
    meter.settle(target.account)
    grown = meter.memory(target.account) - before
    for session in sessions:
        session.command("NOOP", "200")
        session.socket.close()
    meter.settle(target.account)
    return grown / count


def verify_files(target, site, digest):
    """Are the files right? Nothing is measured here."""
    session = Session.logged_in(target)
    got = []
    download(session, f"RETR {SMALL[0]}", got.append)
    if b"".join(got) != Path(site / SMALL[0]).read_bytes():
        raise Wrong(f"{SMALL[0]} arrived with other bytes")
    hashed = hashlib.sha256()
    download(session, f"RETR {BIG[0]}", hashed.update)
    if hashed.hexdigest() != digest:
        raise Wrong(f"{BIG[0]} arrived with other bytes")
    session.socket.close()


def verify_listings(target, names):
    """Are the listings complete? Keeps how long they are, and whether they are sorted."""
    session = Session.logged_in(target)
    session.command(f"CWD /{MANY[0]}", "250")
    for verb in ("LIST", "NLST"):
        got = []
        target.listing_bytes[verb] = download(session, verb, got.append)
        lines = b"".join(got).decode().split("\r\n")
        if lines.pop():
            raise Wrong(f"{verb} does not end with a line's end")
        listed = [line.split()[-1] for line in lines if not line.startswith("total ")]
        listed = [name for name in listed if name not in (".", "..")]
        if sorted(listed) != sorted(names):
            raise Wrong(f"{verb} shows {len(listed)} entries, not the {len(names)} there are")
        target.listing_sorted = target.listing_sorted is not False and listed == sorted(names)
    session.socket.close()
