"""What a server costs: CPU time and memory of all its processes, those that have ended included."""

import functools
import gzip
import os
import signal
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PF_WQ_WORKER = 0x20


class Cgroup:
    """The processes in a control group (v2) of their own: exact to the microsecond, and io_uring's
    kernel threads are in it, being threads of the process."""

    method = "cgroup v2 cpu.stat, usage_usec"

    def __init__(self, path):
        path.mkdir()
        self.path = path

    @staticmethod
    def parent():
        """Where groups can be made: below the group of this process, else below the root. None if
        nowhere."""
        for line in Path("/proc/self/mounts").read_text().splitlines():
            fields = line.split()
            if fields[2] != "cgroup2":
                continue
            root = Path(fields[1])
            own = next(
                (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines()
                 if line.startswith("0::")), "/",
            )
            for base in (root / own.lstrip("/"), root):
                path = base / f"ftp-compare-{os.getpid()}"
                try:
                    path.mkdir()
                except OSError:
                    continue
                if (path / "cpu.stat").exists() and os.access(path / "cgroup.procs", os.W_OK):
                    return path
                path.rmdir()
        return None

    def enter(self):
        """For the server's process between fork and exec."""
        (self.path / "cgroup.procs").write_text("0")

    def seconds(self):
        return int((self.path / "cpu.stat").read_text().split()[1]) / 1e6

    def pids(self):
        return [
            int(pid)
            for procs in [self.path / "cgroup.procs", *self.path.glob("**/*/cgroup.procs")]
            for pid in procs.read_text().split()
        ]

    def kill(self):
        for _ in range(100):
            pids = self.pids()
            if not pids:
                break
            _kill(pids)
            time.sleep(0.02)

    def close(self):
        try:
            self.path.rmdir()
        except OSError:
            pass


class Tree:
    """The same from /proc/PID/stat, in ticks: children that have ended count once their parent has
    waited for them."""

    method = f"/proc/PID/stat of the process tree, ticks of {1000 // _TICK} ms"

    def __init__(self):
        self.root = None

    def enter(self):
        pass

    def seconds(self):
        ticks = 0
        for pid in self.pids():
            fields = _stat(pid)
            if fields:
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / _TICK

    def pids(self):
        parents = {}
        for pid in _all_pids():
            fields = _stat(pid)
            if fields:
                parents.setdefault(int(fields[1]), []).append(pid)
        found, todo = [], [self.root]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo.extend(parents.get(pid, []))
        return found

    def kill(self):
        _kill(self.pids() if self.root else [])

    def close(self):
        pass


def kernel_workers():
    """CPU seconds of the kernel's shared worker threads, as far as they can be seen. Work that
    servers leave to them is on nobody's account."""
    nanoseconds = 0
    for pid in _all_pids():
        fields = _stat(pid)
        if fields and int(fields[6]) & _PF_WQ_WORKER:
            try:
                nanoseconds += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
            except (OSError, IndexError):
                pass
    return nanoseconds / 1e9


def interrupts(cpu):
    """Seconds that a CPU spent on interrupts, the network's above all, if this kernel does not
    count them as time of the process they interrupted; else 0."""
    if not interrupts_apart():
        return 0.0
    with open("/proc/stat") as stat:
        fields = next(line.split() for line in stat if line.startswith(f"cpu{cpu} "))
    return (int(fields[6]) + int(fields[7])) / _TICK


@functools.cache
def interrupts_apart():
    """Is CONFIG_IRQ_TIME_ACCOUNTING set?"""
    for path in (f"/boot/config-{os.uname().release}", "/proc/config.gz"):
        try:
            with (gzip.open if path.endswith(".gz") else open)(path, "rt") as config:
                return "CONFIG_IRQ_TIME_ACCOUNTING=y\n" in config
        except OSError:
            continue
    return False


def wakeups(account):
    """How often the threads of a server that are there now have slept and been woken."""
    count = 0
    for pid in account.pids():
        for path in Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                text = path.read_text()
            except OSError:
                continue
            count += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return count


def memory(account):
    """Proportional set size of all processes, in bytes."""
    total = 0
    for pid in account.pids():
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except ProcessLookupError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total << 10


def settle(account, limit=3.0):
    """Waits until a server has done what it does after the last reply: ending processes, say."""
    end = time.monotonic() + limit
    before = account.seconds() + kernel_workers()
    while time.monotonic() < end:
        time.sleep(0.03)
        now = account.seconds() + kernel_workers()
        if now - before < 0.0005:
            return
        before = now


def _all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid):
    """The fields of /proc/PID/stat from the third on; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
