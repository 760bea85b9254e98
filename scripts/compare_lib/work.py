"""How cases are measured: each is something to call with the bench and a server.

What comes back is by name: `cpu` (seconds of the server per unit) and `elsewhere` (of the kernel's
shared workers meanwhile), `rate` (units per second, or MiB per second), `p50` and `p99` (µs),
`memory` (KiB per session), `wakeup` (KiB moved per wakeup), `ratio`.
"""

import contextlib
import json
import time

from . import Unavailable, Wrong, host, limits, load, meter
from .files import BIG, COLD

_MIB = 1 << 20
# The other process of a case beside another one gets going.
_GET_GOING_SECONDS = 0.6
_SETTLED_SECONDS = 0.8
# Buffers on both sides of slow readers are full by then, and what is read is what is sent.
_FILL_SECONDS = 1.5
# Sessions that tell what many would be: the first, the last, and others between.
_SAMPLES = (200, 600, 200)


class Bench:
    """What all cases are measured with."""

    def __init__(self, program, site, cpu, client_cpu, seconds):
        self.program, self.site, self.cpu, self.client_cpu = program, site, cpu, client_cpu
        self.seconds = seconds
        # A limits.SlowDisk, or why there is none.
        self.slow_disk, self.no_slow_disk = None, None
        self.scratch = site.root.parent

    def load(self, target, *arguments, **options):
        return load.Load(self.program, self.client_cpu, target, *arguments, **options)

    def go(self, target, generator, seconds):
        """Has the generator work; returns what it did and what the server spent on it."""
        meter.settle(target.account)
        spent = _Spent(self, target)
        said = generator.go(seconds)
        meter.settle(target.account)
        spent.stop()
        return said, spent

    def verified(self, target, what, check):
        """Has something checked that need be checked once only."""
        what = what, target.over_tls
        if what not in target.verified:
            check()
            target.verified.add(what)


class _Spent:
    """CPU seconds and wakeups of a server from now on."""

    def __init__(self, bench, target):
        self.bench, self.target = bench, target
        self.kernel, self.woken = meter.kernel_workers(), meter.wakeups(target.account)
        self.cpu = self._now()

    def stop(self):
        self.cpu = self._now() - self.cpu
        # A process for each transfer takes its count with it: then there is nothing to tell.
        forks = self.target.forks_transfers
        self.woken = 0 if forks else meter.wakeups(self.target.account) - self.woken
        self.elsewhere = max(meter.kernel_workers() - self.kernel, 0.0)

    def _now(self):
        return self.target.account.seconds() + meter.interrupts(self.bench.cpu)


def _latency(said):
    found = said.get("latency")
    return {} if not found else {"p50": found["p50"], "p99": found["p99"]}


class Steady:
    """The same again and again. `check`: the name and size of the file that it gets. `per`: how
    many transfers are a unit, and `size` of a transfer, when the rate is one of bytes."""

    def __init__(self, *arguments, check=None, warm=True, per=1.0, size=None):
        self.arguments, self.check = arguments, check
        self.warm, self.per, self.size = warm, per, size

    def __call__(self, bench, target):
        if self.check:
            name, size = self.check
            bench.verified(target, name, lambda: load.once(
                bench.program, target, "verify", "--file", name, "--size", size))
        with bench.load(target, *self.arguments) as generator:
            if self.warm:
                generator.warm()
            said, spent = bench.go(target, generator, bench.seconds)
            generator.end()
        return self.values(said["units"], said["seconds"], spent.cpu, spent.elsewhere,
                           spent.woken) | _latency(said)

    def values(self, transfers, seconds, cpu, elsewhere, woken):
        units = transfers / self.per
        found = {"cpu": cpu / units, "elsewhere": elsewhere / units, "rate": units / seconds}
        if self.size:
            found["rate"] = transfers * self.size / _MIB / seconds
            if woken > 0:
                found["wakeup"] = transfers * self.size / 1024 / woken
        return found


class Upload(Steady):
    """Files are stored. `apart`: each step is measured alone, and what it stored removed before the
    next, because that would cost as much again."""

    def __init__(self, *arguments, folder, size, count, apart=False):
        per, rate_size = ((1 << 30) / size, size) if apart else (1.0, None)
        super().__init__(*arguments, per=per, size=rate_size)
        self.folder, self.count, self.apart, self.file_size = folder, count, apart, size

    def __call__(self, bench, target):
        bench.site.empty(self.folder)
        with bench.load(target, *self.arguments, user=target.uploader) as generator:
            generator.warm()
            bench.verified(target, self.arguments, lambda: self._check(bench))
            go = self._go_apart if self.apart else self._go
            found = go(bench, target, generator)
            generator.end()
        bench.site.empty(self.folder)
        return found

    def _check(self, bench):
        wrong = bench.site.check_uploads(self.folder, self.file_size, self.count, bench.program)
        if wrong:
            raise Wrong(wrong)

    def _go(self, bench, target, generator):
        said, spent = bench.go(target, generator, bench.seconds)
        return self.values(said["units"], said["seconds"], spent.cpu, spent.elsewhere, 0)

    def _go_apart(self, bench, target, generator):
        units = seconds = cpu = elsewhere = woken = 0
        while seconds < bench.seconds:
            bench.site.empty(self.folder)
            host.sync(bench.site.root / self.folder)
            said, spent = bench.go(target, generator, 0)
            units, seconds = units + said["units"], seconds + said["seconds"]
            cpu, elsewhere = cpu + spent.cpu, elsewhere + spent.elsewhere
            woken += spent.woken
        return self.values(units, seconds, cpu, elsewhere, woken)


class Listing(Steady):
    """A large directory."""

    def __init__(self, verb, many):
        super().__init__("list", "--verb", verb, "--directory", f"/{many}")
        self.many = many

    def __call__(self, bench, target):
        bench.verified(target, self.many, lambda: self._check(bench, target))
        return super().__call__(bench, target)

    def _check(self, bench, target):
        """Do listings have the names that are there? Keeps whether they are sorted."""
        names = bench.scratch / f"{self.many}.names"
        names.write_text("".join(f"{name}\n" for name in bench.site.names[self.many]))
        said = json.loads(load.once(
            bench.program, target, "verify-list", "--directory", f"/{self.many}",
            "--names", names))
        if said.get("sorted") is not None:
            target.listing_sorted = target.listing_sorted is not False and said["sorted"]


class Idle:
    """Memory per idle session: how much all processes grow by that many logins."""

    def __init__(self, count):
        self.count = count

    def __call__(self, bench, target):
        _must_bear(bench, target, self.count)
        target.restart()
        target.spoiled = True
        with bench.load(target, "login", "--sessions", 32) as generator:
            generator.warm()
        meter.settle(target.account)
        before = meter.memory(target.account)
        with bench.load(target, "idle", "--sessions", self.count) as generator:
            meter.settle(target.account)
            grown = meter.memory(target.account) - before
            generator.end()
        return {"memory": grown / self.count / 1024}


def _must_bear(bench, target, count):
    """Raises Unavailable if so many sessions are too much for this machine, judged by 1000."""
    if count <= sum(_SAMPLES):
        # It would be tried by trying it.
        return
    if target.per_session is None:
        target.per_session = _per_session(bench, target)
    reason = limits.refusal(count, target.per_session)
    if reason:
        raise Unavailable(reason)


def _per_session(bench, target):
    """Bytes, the kernel's included, and processes of a session; seconds of its login, and by how
    many the next one takes longer: some servers look at all sessions there are."""
    meter.settle(target.account)
    free, processes = host.available(), len(target.account.pids())
    seconds = []
    with contextlib.ExitStack() as stack:
        for count in _SAMPLES:
            start = time.monotonic()
            stack.enter_context(bench.load(target, "idle", "--sessions", count))
            seconds.append((time.monotonic() - start) / count)
        meter.settle(target.account)
        total = sum(_SAMPLES)
        found = [max(free - host.available(), 0) / total,
                 max(len(target.account.pids()) - processes, 0) / total,
                 seconds[0], max(seconds[-1] - seconds[0], 0) / (total - _SAMPLES[0])]
    meter.settle(target.account)
    return found


class Flat(Steady):
    """What a case costs while many other sessions are open that do nothing, and how many times
    what it costs without them: before and after, so that a drift does not count."""

    def __init__(self, count, *arguments):
        super().__init__(*arguments)
        self.count = count

    def __call__(self, bench, target):
        _must_bear(bench, target, self.count)
        target.restart()
        target.spoiled = True
        with bench.load(target, *self.arguments) as generator:
            generator.warm()
            alone = self._cost(bench, target, generator, bench.seconds / 2)
            with bench.load(target, "idle", "--sessions", self.count) as idle:
                beside = self._cost(bench, target, generator, bench.seconds)
                idle.end()
            alone += self._cost(bench, target, generator, bench.seconds / 2)
            generator.end()
        return {"cpu": beside, "ratio": beside / (alone / 2)}

    @staticmethod
    def _cost(bench, target, generator, seconds):
        # What came before, a start or many logins and ends, leaves caches and timers behind.
        generator.go(_SETTLED_SECONDS)
        said, spent = bench.go(target, generator, seconds)
        return spent.cpu / said["units"]


class Probe:
    """How long one client waits for its answers, by itself or beside the downloads of others."""

    def __init__(self, probe, beside, hot=BIG):
        """`hot`: the name and size of the file that comes from memory."""
        self.probe, self.beside, self.hot = probe, beside, hot

    def __call__(self, bench, target):
        seconds = 2 * bench.seconds
        with contextlib.ExitStack() as stack:
            probe = stack.enter_context(bench.load(target, *self.probe, first=True))
            probe.warm()
            if self.beside == "hot":
                self._hot(bench, target, stack, seconds)
            elif self.beside == "cold":
                self._cold(bench, target, stack, seconds)
            read, start = self._disk_bytes(target), time.monotonic()
            said = probe.go(seconds)
            if self.beside == "cold":
                read = self._disk_bytes(target) - read
                self._must_be_cold(read / (time.monotonic() - start), bench.slow_disk)
            probe.end()
        meter.settle(target.account)
        return _latency(said)

    def _hot(self, bench, target, stack, seconds):
        name, size = self.hot
        # Polite to the probe: the time that it waits for its own CPU is not the server's.
        bulk = stack.enter_context(bench.load(
            target, "retr", "--sessions", 16, "--via", "epsv", "--file", name, "--size", size,
            nice=19))
        bulk.start(seconds + 60)
        time.sleep(_GET_GOING_SECONDS)

    @staticmethod
    def _cold(bench, target, stack, seconds):
        if target.throttle is None:
            raise Unavailable(bench.no_slow_disk)
        bench.site.drop_cold()
        # After the clients have gone: what still waits for the disk would wait for long.
        stack.callback(target.throttle.set, None)
        target.throttle.set(limits.SlowDisk.bytes_per_second)
        for name, size in COLD:
            bulk = stack.enter_context(bench.load(
                target, "retr", "--sessions", 1, "--via", "epsv", "--file", name, "--size", size,
                nice=19))
            bulk.start(seconds + 60)
        time.sleep(_GET_GOING_SECONDS)

    def _disk_bytes(self, target):
        return target.throttle.bytes_read() if self.beside == "cold" else 0

    @staticmethod
    def _must_be_cold(rate, disk):
        limit = disk.bytes_per_second
        if not 0.3 * limit < rate < 1.5 * limit:
            raise Wrong(f"not what was to be measured: {rate / 1e6:.0f} MB/s came from the disk "
                        f"with a limit of {limit / 1e6:.0f}")


class Slow:
    """Clients that read slowly: what they cost, and what another one feels of them."""

    # The kernel would hold megabytes for each, and the server have nothing to do for a minute. A
    # path as slow as the reader has buffers of this kind.
    send_buffer = 128 << 10

    def __init__(self, count, rate, probe):
        self.count, self.rate, self.probe = count, rate, probe

    def __call__(self, bench, target):
        if not bench.site.private:
            raise Unavailable("needs a network of its own (root)")
        target.restart()
        target.spoiled = True
        with host.send_buffers(self.send_buffer), \
                bench.load(target, *self.probe, first=True) as probe:
            probe.warm()
            found = self._beside(bench, target, probe)
            probe.end()
        return found

    def _beside(self, bench, target, probe):
        window = max(2 * bench.seconds, 2)
        total = _FILL_SECONDS + window + bench.seconds + 1
        before = meter.memory(target.account)
        with bench.load(target, "slow", "--sessions", self.count, "--file", BIG[0],
                        "--size", BIG[1], "--rate", self.rate, nice=19) as slow:
            slow.start(total)
            time.sleep(_FILL_SECONDS)
            spent, start = _Spent(bench, target), time.monotonic()
            time.sleep(window)
            spent.stop()
            seconds = time.monotonic() - start
            grown = meter.memory(target.account) - before
            latency = _latency(probe.go(bench.seconds))
            moved = slow.result(total)
        least = self.count * self.rate * moved["seconds"] * 0.7
        if moved["bytes"] < least:
            raise Wrong(f"{moved['bytes'] >> 20} MiB arrived where {int(least) >> 20} should have")
        return {"cpu": spent.cpu / seconds, "elsewhere": spent.elsewhere / seconds,
                "memory": grown / self.count / 1024} | latency
