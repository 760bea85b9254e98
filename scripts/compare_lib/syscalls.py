"""System calls per transfer: strace counts them while the work is done, and not before."""

import contextlib
import shutil
import signal
import subprocess
import time

from . import Unavailable, Wrong
from .files import BIG, MEMORY_UP, SMALL

# Where a server sleeps until something happens.
WAITING = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "io_uring_enter", "poll", "ppoll",
           "select", "pselect6")
_SMALL_COUNT, _NOOP_COUNT = 100, 200
_WAITS_MIN = 50


class Traced:
    """Counts what each kind of work calls, of all processes of a server."""

    works = (
        ("NOOP", _NOOP_COUNT, None, ("command", "--sessions", 1, "--line", "NOOP", "--code", 200)),
        ("RETR 4 KiB", _SMALL_COUNT, None,
         ("retr", "--sessions", 1, "--via", "epsv", "--file", SMALL[0], "--size", SMALL[1])),
        ("STOR 4 KiB", _SMALL_COUNT, None,
         ("stor", "--sessions", 1, "--via", "epsv", "--file", f"{MEMORY_UP}/c",
          "--size", SMALL[1])),
        ("RETR 1 GiB", 1, BIG[1],
         ("retr", "--sessions", 1, "--via", "epsv", "--file", BIG[0], "--size", BIG[1])),
        ("STOR 1 GiB", 1, BIG[1],
         ("stor", "--sessions", 1, "--via", "epsv", "--file", f"{MEMORY_UP}/d",
          "--size", BIG[1])),
    )

    def __call__(self, bench, target):
        if not shutil.which("strace"):
            raise Unavailable("strace is not installed")
        target.spoiled = True
        found = {}
        for title, count, size, arguments in self.works:
            bench.site.empty(MEMORY_UP)
            user = target.uploader if arguments[0] == "stor" else None
            with bench.load(target, *arguments, user=user) as generator:
                if size is None:
                    generator.warm()
                with _tracing(bench, target) as calls:
                    for _ in range(count):
                        generator.warm()
                generator.end()
            found[title] = {"calls": {name: number / count for name, number in calls.items()}}
            waits = sum(calls.get(name, 0) for name in WAITING)
            # A few are those between transfers: it sleeps in reading or sending itself.
            if size and waits > _WAITS_MIN:
                found[title]["bytes_per_wait"] = size * count / waits
        bench.site.empty(MEMORY_UP)
        return {"syscalls": found}


@contextlib.contextmanager
def _tracing(bench, target):
    """Yields a dictionary that has the counts once the block has been left."""
    summary = bench.scratch / "strace.txt"
    pids = [part for pid in target.account.pids() for part in ("-p", str(pid))]
    strace = subprocess.Popen(
        ["strace", "-f", "-c", "-U", "calls,name", "-o", summary, *pids],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    calls = {}
    try:
        time.sleep(0.5)
        if strace.poll() is not None:
            said = strace.stderr.read().decode(errors="replace").strip().splitlines()
            raise Wrong(said[-1] if said else "strace: it ended")
        yield calls
        strace.send_signal(signal.SIGINT)
        strace.wait(20)
    except subprocess.TimeoutExpired:
        raise Wrong("strace does not end") from None
    finally:
        strace.kill()
        strace.wait()
        strace.stderr.close()
    for line in summary.read_text().splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[0].isdigit() and fields[1] != "total":
            calls[fields[1]] = int(fields[0])
