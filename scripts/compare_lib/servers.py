"""The servers: where they come from, their start and their end."""

import os
import socket
import subprocess
import time
from pathlib import Path

from . import Unavailable, host, meter, packages, settings

# Debian's package, its binary, what the tables call it, and its settings.
PEERS = {
    "vsftpd": ("vsftpd", "usr/sbin/vsftpd", "vsftpd", settings.vsftpd),
    "proftpd": ("proftpd-core", "usr/sbin/proftpd", "ProFTPD", settings.proftpd),
    "pure-ftpd": ("pure-ftpd", "usr/sbin/pure-ftpd", "Pure-FTPd", settings.pure_ftpd),
}
NAMES = ["ringftpd", *PEERS, "floor"]


class Server:
    """A server that can be started again and again."""

    def __init__(self, name, title, version, command, port, environment=None, uploader=None):
        self.name, self.title, self.version, self.port = name, title, version, port
        self.command = [str(part) for part in command]
        self.environment = environment or {}
        # Who stores files, if anonymous may not replace them.
        self.uploader = uploader
        # What has been seen to be right already, and what was learned about it.
        self.verified, self.listing_sorted, self.asks_password = set(), None, True
        self.passive_asked = self.passive_refused = 0
        self.per_session = None
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
                self.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd="/",
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

    def restart(self):
        self.stop()
        self.start(*self.place)

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


def ringftpd(binary, scratch, site, cpu, privileged):
    if not os.access(binary, os.X_OK):
        raise Unavailable(f"{binary} is not there: cargo build --release, or --ringftpd PATH")
    version = host.output_of(binary, "--version").split()[-1]
    ports = port_of("ringftpd")
    arguments = settings.ringftpd(scratch, site, cpu, privileged, *ports)
    return Server("ringftpd", "ringftpd", version, [binary, *arguments], ports[0])


def peer(name, folder, scratch, site):
    """One of Debian's servers, from its package: what sets it up once its user is there."""
    package, binary, title, configure = PEERS[name]
    debs = folder / name
    root = scratch / name
    version = packages.unpack(package, debs, root)
    environment = packages.complete(root / binary, debs, root)
    ports = port_of(name)
    uploader = settings.UPLOADER if name == "pure-ftpd" else None

    def set_up():
        command = [root / binary, *configure(root, scratch, site, *ports)]
        return Server(name, title, version, command, ports[0], environment, uploader)

    return set_up


def floor(scratch, site):
    source = Path(__file__).with_name("floor.c")
    port = port_of("floor")[0]
    binary = scratch / "floor"
    try:
        host.output_of("cc", "-O2", "-o", binary, source)
    except Unavailable as error:
        raise Unavailable(f"no C compiler, or it fails ({error})") from error
    return Server("floor", "floor (C)", None, [binary, port, site], port)
