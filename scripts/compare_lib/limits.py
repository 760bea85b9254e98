"""Limits: how many sessions can be tried here, and a disk that is slow for one server."""

import os
import resource
from pathlib import Path

from . import Unavailable, host

# The same for all servers. Enough for 18 000 sessions and the passive ports of one that binds them
# once, and not so high that closing all of them costs.
DESCRIPTORS = 20_000
# A part of the memory that is free, and a time, that sessions may take which do nothing.
_MEMORY_PART = 0.6
_LOGIN_SECONDS_MAX = 60.0


def raise_descriptors():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def refusal(count, per_session):
    """Why that many sessions are not tried; None if they can be. `per_session`: bytes, the
    kernel's included, processes and seconds of one, and by how many seconds each takes longer than
    the one before; estimated from fewer."""
    size, processes, login, growth = per_session
    seconds = count * login + count * count / 2 * growth
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if count + 100 > limit:
        return f"the descriptor limit is {limit}"
    free = host.available()
    if count * size > _MEMORY_PART * free:
        return (f"{count:,} sessions would take {count * size / 2**30:.1f} GiB, the kernel's part "
                f"included; {free / 2**30:.1f} are free").replace(",", " ")
    if processes > 0 and count * processes > _MEMORY_PART * _processes_max():
        return (f"{count:,} sessions would take {count * processes:,.0f} processes of the "
                f"{_processes_max():,} there may be").replace(",", " ")
    if seconds > _LOGIN_SECONDS_MAX:
        # By how much is no more than a guess: some slow down faster the more there are.
        return (f"{count:,} logins would take more than {_LOGIN_SECONDS_MAX:.0f} s, by the time "
                "that 1,000 take").replace(",000", " 000")
    return None


def _processes_max():
    numbers = [int(Path(f"/proc/sys/kernel/{name}").read_text())
               for name in ("pid_max", "threads-max")]
    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    return min(numbers + ([own] if own != resource.RLIM_INFINITY else []))


class SlowDisk:
    """The disk of a folder, of which servers read no faster than a limit when told so."""

    bytes_per_second = 100_000_000

    def __init__(self, folder, cgroups, cleanup):
        """`cgroups`: where the groups (v2) of servers are made, or None."""
        self.device = _disk_of(folder)
        self.base = None
        if cgroups and _enable_io(cgroups, cleanup):
            self.method = "cgroup v2 io.max"
            return
        root = _blkio_root()
        if root is None:
            raise Unavailable("no cgroup controller here limits reading (io of v2, blkio of v1)")
        self.base = root / f"ftp-compare-{os.getpid()}"
        try:
            self.base.mkdir()
        except OSError as error:
            raise Unavailable(f"{self.base}: {error.strerror}") from None
        self.method = "cgroup v1 blkio.throttle.read_bps_device"
        cleanup.callback(_remove, self.base)

    def throttle(self, name, account):
        if self.base is None:
            return _Throttle(self.device, account.path, "io.max", "{} rbps={}", "max", "io.stat")
        path = self.base / name
        path.mkdir()
        return _BlkioThrottle(
            self.device, path, "blkio.throttle.read_bps_device", "{} {}", "0",
            "blkio.throttle.io_service_bytes")


class _Throttle:
    """The limit of one server, by the group its processes are in anyway."""

    def __init__(self, device, path, limit, form, none, counts):
        self.device, self.path = device, path
        self.limit, self.form, self.none, self.counts = limit, form, none, counts

    def enter(self):
        pass

    def set(self, bytes_per_second):
        """None: no limit."""
        value = self.none if bytes_per_second is None else bytes_per_second
        try:
            (self.path / self.limit).write_text(self.form.format(self.device, value))
        except OSError as error:
            raise Unavailable(f"reading from {self.device} cannot be limited: {error}") from None

    def bytes_read(self):
        for line in (self.path / self.counts).read_text().splitlines():
            fields = line.split()
            if fields[0] == self.device:
                return int(dict(field.split("=") for field in fields[1:])["rbytes"])
        return 0

    def close(self):
        pass


class _BlkioThrottle(_Throttle):
    """The same with a group for it (v1)."""

    def enter(self):
        (self.path / "cgroup.procs").write_text("0")

    def bytes_read(self):
        for line in (self.path / self.counts).read_text().splitlines():
            if line.startswith(f"{self.device} Read "):
                return int(line.split()[2])
        return 0

    def close(self):
        _remove(self.path)


def _disk_of(folder):
    number = os.stat(folder).st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not device.exists():
        raise Unavailable(f"the file system of {folder} is on no block device of its own")
    # Limits are those of whole disks.
    if (device / "partition").exists():
        device = device.resolve().parent
    return (device / "dev").read_text().strip()


def _enable_io(cgroups, cleanup):
    """Has groups below `cgroups` limit their reading, for as long as this runs."""
    for group in (cgroups.parent, cgroups):
        control = group / "cgroup.subtree_control"
        try:
            if "io" in control.read_text().split():
                continue
            if "io" not in (group / "cgroup.controllers").read_text().split():
                return False
            control.write_text("+io")
        except OSError:
            return False
        cleanup.callback(_disable_io, control)
    return True


def _disable_io(control):
    try:
        control.write_text("-io")
    except OSError:
        pass


def _blkio_root():
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup" and "blkio" in fields[3].split(","):
            return Path(fields[1])
    return None


def _remove(group):
    try:
        group.rmdir()
    except OSError:
        pass
