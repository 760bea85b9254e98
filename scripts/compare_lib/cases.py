"""The work that is measured: what each case does, needs and counts in."""

from dataclasses import dataclass

from . import Unavailable, files, syscalls, work
from .files import BIG, DISK_BIG, DISK_UP, MEDIUM, MEMORY_UP, SMALL

_GIB = 1 << 30
# Every probe is a round trip: as many as this in a second at most, so that it is no load itself.
_INTERVAL = ("--interval-us", 1000)
_PROBE_NOOP = ("probe", "--what", "noop", *_INTERVAL)
_PROBE_SMALL = ("probe", "--what", "retr", "--via", "epsv", "--file", SMALL[0],
                "--size", SMALL[1], *_INTERVAL)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    # What CPU time is told in, and from seconds to that; memory is in KiB, latency in ms.
    unit: str
    scale: float
    # `work(bench, target)` returns what was measured, by name.
    work: object
    # The files it needs.
    files: tuple = ()
    # In the first round only: it takes long, and varies little or is no matter of medians.
    once: bool = False
    # The servers that cannot do it, and why.
    cannot: tuple = ()
    # Whether everything goes over TLS.
    tls: bool = False
    # A guess of the seconds it takes, until it has been seen.
    guess: float = 2.0


def _small(name, title, sessions, via, verb="retr", tls=False):
    path = SMALL[0] if verb == "retr" else f"{MEMORY_UP}/s"
    arguments = (verb, "--sessions", sessions, "--via", via, "--file", path, "--size", SMALL[1])
    if verb == "retr":
        return Case(name, title, "µs", 1e6, work.Steady(*arguments, check=SMALL), (SMALL[0],),
                    tls=tls)
    return Case(name, title, "µs", 1e6,
                work.Upload(*arguments, folder=MEMORY_UP, size=SMALL[1], count=sessions),
                (MEMORY_UP,))


def _bulk(count, file=BIG, tls=False):
    # Files in memory are warm; only the first of these cases has connections to warm up.
    arguments = ("retr", "--sessions", count, "--via", "epsv", "--file", file[0],
                 "--size", file[1])
    name, title = f"bulk-{count}", f"RETR {_size(file[1])} × {count}"
    if tls:
        name, title = f"tls-{count}", f"TLS {title}"
    steady = work.Steady(*arguments, check=file, warm=count == 1, per=_GIB / file[1], size=file[1])
    guess = 4 * count ** 0.5 if tls else 4
    return Case(name, title, "s/GiB", 1, steady, (file[0],), tls=tls, guess=guess)


def _bulk_upload(name, title, folder, tls=False):
    arguments = ("stor", "--sessions", 1, "--via", "epsv", "--file", f"{folder}/b",
                 "--size", BIG[1])
    upload = work.Upload(*arguments, folder=folder, size=BIG[1], count=1, apart=True)
    return Case(name, title, "s/GiB", 1, upload, (MEMORY_UP, folder), tls=tls, guess=6)


def _listing(verb, many, title):
    listing = work.Listing(verb.upper(), many)
    cannot = (("vsftpd", "it has no MLSD"),) if verb == "mlsd" else ()
    short = many.removeprefix("many-")
    return Case(f"{verb}-{short}", f"{verb.upper()}, {title} entries", "ms", 1e3, listing,
                (many,), cannot=cannot, guess=2 if short == "10k" else 4)


def _idle(count, name, once):
    title = f"{count:,} idle sessions".replace(",", " ")
    return Case(name, title, "KiB", 1, work.Idle(count), once=once, guess=8 if once else 4)


def _probe(name, title, probe, beside=None):
    cold = beside == "cold"
    needs = {"hot": (BIG[0],), "cold": tuple(name for name, _ in files.COLD)}.get(beside, ())
    small = (SMALL[0],) if probe is _PROBE_SMALL else ()
    return Case(name, title, "ms", 1, work.Probe(probe, beside), needs + small,
                once=cold, guess=5 if cold else 4)


def _size(size):
    return f"{size >> 30} GiB" if size >= _GIB else f"{size >> 20} MiB"


_HOT, _COLD = "16 downloads from memory", "4 downloads from a slow disk"
ALL = {
    case.name: case
    for case in (
        Case("login", "login + quit, 32 at a time", "ms", 1e3,
             work.Steady("login", "--sessions", 32)),
        Case("noop", "NOOP, 64 sessions", "µs", 1e6,
             work.Steady("command", "--sessions", 64, "--line", "NOOP", "--code", "200")),
        _small("small-epsv", "RETR 4 KiB, EPSV, 32 sessions", 32, "epsv"),
        _small("small-pasv", "RETR 4 KiB, PASV, one session", 1, "pasv"),
        _small("small-active", "RETR 4 KiB, EPRT, one session", 1, "eprt"),
        _small("small-stor", "STOR 4 KiB, EPSV, 32 sessions", 32, "epsv", "stor"),
        _bulk(1),
        _bulk(8),
        _bulk(64, MEDIUM),
        _bulk_upload("stor-tmpfs", "STOR 1 GiB to tmpfs", MEMORY_UP),
        _bulk_upload("stor-ext4", "STOR 1 GiB to a disk", DISK_UP),
        *(_listing(verb, many, title)
          for verb in ("list", "mlsd", "nlst")
          for many, title in (("many-10k", "10 000"), ("many-100k", "100 000"))),
        _probe("probe-noop", "NOOP, nothing beside", _PROBE_NOOP),
        _probe("probe-small", "RETR 4 KiB, nothing beside", _PROBE_SMALL),
        _probe("noop-hot", f"NOOP beside {_HOT}", _PROBE_NOOP, "hot"),
        _probe("small-hot", f"RETR 4 KiB beside {_HOT}", _PROBE_SMALL, "hot"),
        _probe("noop-cold", f"NOOP beside {_COLD}", _PROBE_NOOP, "cold"),
        _probe("small-cold", f"RETR 4 KiB beside {_COLD}", _PROBE_SMALL, "cold"),
        Case("slow-200", "200 readers of 64 KiB/s", "ms/s", 1e3,
             work.Slow(200, 64 << 10, _PROBE_NOOP), (BIG[0],), once=True, guess=8),
        Case("flat", "RETR 4 KiB, EPSV, 32 sessions, beside 10 000 idle sessions", "µs", 1e6,
             work.Flat(10_000, "retr", "--sessions", 32, "--via", "epsv", "--file", SMALL[0],
                       "--size", SMALL[1]), (SMALL[0],), guess=10),
        _idle(1_000, "idle-1k", once=False),
        _idle(10_000, "idle-10k", once=True),
        _idle(18_000, "idle-18k", once=True),
        Case("syscalls", "system calls per transfer", "", 1, syscalls.Traced(),
             (SMALL[0], BIG[0], MEMORY_UP), once=True, guess=12),
        Case("tls-login", "TLS login + quit, 32 at a time", "ms", 1e3,
             work.Steady("login", "--sessions", 32), tls=True),
        _small("tls-small", "TLS RETR 4 KiB, EPSV, 32 sessions", 32, "epsv", tls=True),
        _bulk(1, DISK_BIG, tls=True),
        _bulk(8, DISK_BIG, tls=True),
        _bulk_upload("tls-stor", "TLS STOR 1 GiB to a disk", DISK_UP, tls=True),
        Case("tls-noop-hot", f"TLS NOOP beside {_HOT}", "ms", 1,
             work.Probe(_PROBE_NOOP, "hot", DISK_BIG), (DISK_BIG[0],), tls=True, guess=5),
        Case("tls-idle-1k", "1 000 idle TLS sessions", "KiB", 1, work.Idle(1_000), once=True,
             tls=True, guess=15),
    )
}


def excuse(case, target, site):
    """Why a server cannot do a case at all; None if it can."""
    for name, reason in case.cannot:
        if name == target.name:
            return reason
    if case.tls and target.no_tls:
        return target.no_tls
    on_disk = any(name.startswith(files.DISK + "/") for name in case.files)
    if on_disk and site.no_disk:
        return site.no_disk
    return None


def check(case, target, site):
    reason = excuse(case, target, site)
    if reason:
        raise Unavailable(reason)
