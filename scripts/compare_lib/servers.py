"""The servers: where they come from, their start and their end."""

import os
import socket
import subprocess
import time
from pathlib import Path

from . import Unavailable, host, meter, packages, settings

# Debian's package, its binary, what the tables call it, its settings, and if its TLS comes apart, the
# package and the file of that.
PEERS = {
    "vsftpd": ("vsftpd", "usr/sbin/vsftpd", "vsftpd", settings.vsftpd, None),
    "proftpd": ("proftpd-core", "usr/sbin/proftpd", "ProFTPD", settings.proftpd,
                ("proftpd-mod-crypto", "usr/lib/proftpd/mod_tls.so")),
    "pure-ftpd": ("pure-ftpd", "usr/sbin/pure-ftpd", "Pure-FTPd", settings.pure_ftpd, None),
}
NAMES = ["ringftpd", *PEERS, "floor"]


class Server:
    """A server that can be started again and again."""

    def __init__(self, name, title, version, commands, port, environment=None, uploader=None,
                 no_tls=None):
        """`commands`: without TLS, and with it. `no_tls`: why there is none."""
        self.name, self.title, self.version, self.port = name, title, version, port
        self.commands = [[str(part) for part in command] for command in commands]
        self.environment = environment or {}
        # Who stores files, if anonymous may not replace them.
        self.uploader = uploader
        # What has been seen to be right already, and what was learned about it.
        self.verified, self.listing_sorted, self.asks_password = set(), None, True
        self.passive_asked = self.passive_refused = 0
        self.per_session = None
        # How it runs; version and cipher that were agreed upon, and handshakes of data connections.
        self.over_tls, self.no_tls, self.protocol = False, no_tls, None
        self.full = self.resumed = 0
        # Whether a bulk transfer has a process that ends with it.
        self.forks_transfers = name == "floor"
        # Whether it has been through something that later cases would feel.
        self.spoiled = False
        self.process = self.account = self.throttle = None
        self.place = None

    def start(self, scratch, cgroups, cpu, disk):
        """`cgroups`, `disk`: a Cgroup's parent and a SlowDisk, or None."""
        self.place = (scratch, cgroups, cpu, disk)
        self.spoiled = False
        # Kept before anything is started: whatever happens, stop() finds it.
        self.account = meter.Cgroup(cgroups / self.name) if cgroups else meter.Tree()
        self.throttle = disk.throttle(self.name, self.account) if disk else None
        account, throttle = self.account, self.throttle

        def child():
            account.enter()
            if throttle:
                throttle.enter()
            os.setsid()
            os.sched_setaffinity(0, {cpu})
            host.die_with_parent()

        log = scratch / f"{self.name}.log"
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(
                self.commands[self.over_tls], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **self.environment},
                preexec_fn=child,
            )
        if not cgroups:
            account.root = self.process.pid
        end = time.monotonic() + 10
        while time.monotonic() < end and self.process.poll() is None:
            if _greets(self.port):
                return
            time.sleep(0.05)
        said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"does not start: {said[0][:200]}")

    def restart(self, over_tls=None):
        """`over_tls`: whether it is with TLS from now on; None: as it was."""
        over_tls = self.over_tls if over_tls is None else over_tls
        self.stop()
        self.over_tls = over_tls
        self.start(*self.place)

    def prepare(self, over_tls):
        """Has it run with or without TLS, and as new if it has been spoiled."""
        if self.spoiled or over_tls != self.over_tls:
            self.restart(over_tls)

    def stop(self):
        if self.account is not None:
            self.account.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for group in (self.throttle, self.account):
            if group is not None:
                group.close()
        self.process = self.account = self.throttle = None
        # So it starts the next time.
        self.over_tls = False


def _greets(port):
    """Is it there, and does it say that it is ready?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(512).startswith(b"220")
    except OSError:
        return False


def port_of(name):
    """The control port, and the first and last of the passive ports."""
    index = NAMES.index(name)
    first, count = 12000 + settings.PASSIVE_PORTS * index, settings.PASSIVE_PORTS
    if name == "pure-ftpd":
        first, count = 17000, settings.PURE_FTPD_PORTS
    return 10021 + index, first, first + count - 1


def ringftpd(binary, scratch, site, pem, cpu, privileged):
    if not os.access(binary, os.X_OK):
        raise Unavailable(f"{binary} is not there: cargo build --release, or --ringftpd PATH")
    version = host.output_of(binary, "--version").split()[-1]
    place = settings.Place(scratch, None, site, pem, *port_of("ringftpd"))
    commands = [[binary, *arguments] for arguments in settings.ringftpd(place, cpu, privileged)]
    return Server("ringftpd", "ringftpd", version, commands, place.port)


def peer(name, folder, scratch, site, pem):
    """One of Debian's servers, from its package: what sets it up once its user is there."""
    package, binary, title, configure, apart = PEERS[name]
    debs = folder / name
    root = scratch / name
    version = packages.unpack(package, debs, root)
    environment, no_tls = packages.complete(root / binary, debs, root), None
    if apart:
        try:
            packages.unpack(apart[0], debs, root)
            environment = packages.complete(root / apart[1], debs, root)
        except Unavailable as reason:
            no_tls = str(reason)
    place = settings.Place(scratch, root, site, pem, *port_of(name))
    uploader = settings.UPLOADER if name == "pure-ftpd" else None

    def set_up():
        commands = [[root / binary, *arguments] for arguments in configure(place)]
        return Server(name, title, version, commands, place.port, environment, uploader, no_tls)

    return set_up


def floor(scratch, site, pem):
    source = Path(__file__).with_name("floor.c")
    port = port_of("floor")[0]
    binary, over_tls, no_tls = scratch / "floor", scratch / "floor-tls", None
    try:
        host.output_of("cc", "-O2", "-o", binary, source)
    except Unavailable as error:
        raise Unavailable(f"no C compiler, or it fails ({error})") from error
    try:
        host.output_of("cc", "-O2", "-o", over_tls, source.with_name("floor_tls.c"),
                       "-lssl", "-lcrypto", "-lpthread")
    except Unavailable as error:
        no_tls = f"OpenSSL's headers (package libssl-dev) are missing ({error})"
    commands = [binary, port, site], [over_tls, port, site, pem]
    return Server("floor", "floor (C)", None, commands, port, no_tls=no_tls)
