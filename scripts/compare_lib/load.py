"""Drives the load generator (examples/load.rs): a process on the CPU of the load for each case."""

import json
import os
import select
import signal
import subprocess
import time

from . import Wrong, host

# Of all servers; the generator offers one cipher with it, AES-128-GCM.
TLS_VERSION = "1.3"
# No step and no login of all sessions takes longer, or something is wrong.
LIMIT_SECONDS = 120.0


class Load:
    """One case of the generator, prepared: connected and logged in. It believes no server: a wrong
    reply or count ends it, and raises Wrong here."""

    def __init__(self, program, cpu, target, *arguments, user=None, nice=0, first=False):
        """`first`: it runs before whatever else is on its CPU, where that is permitted."""
        account = ("--user", user[0], "--password", user[1]) if user else ()
        command = [*_towards(program, target), *account, *arguments]
        self.name, self.target = str(arguments[0]), target
        self.buffer = b""

        def child():
            host.die_with_parent()
            os.sched_setaffinity(0, {cpu})
            if nice:
                os.nice(nice)
            if first:
                try:
                    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
                except PermissionError:
                    pass

        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=child)

    def __enter__(self):
        try:
            if self._line(LIMIT_SECONDS) != "ready":
                raise Wrong(f"load {self.name}: not ready")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()

    def warm(self):
        """One step that is not measured."""
        return self._ask("warm", LIMIT_SECONDS)

    def go(self, seconds):
        """Steps until the time is over; returns what was done."""
        self.start(seconds)
        return self.result(seconds)

    def start(self, seconds):
        self._say(f"go {seconds:g}")

    def result(self, seconds):
        said = self._answer(seconds + LIMIT_SECONDS)
        self.target.passive_asked += said.get("asked", 0)
        self.target.passive_refused += said.get("refused", 0)
        if said.get("password_asked") is False:
            self.target.asks_password = False
        shaken = said.get("handshakes")
        if shaken:
            self.target.protocol = shaken["version"], shaken["cipher"]
            # Those of logins are control connections, which have nothing to resume.
            if self.name != "login":
                self.target.full += shaken["full"]
                self.target.resumed += shaken["resumed"]
        return said

    def end(self):
        """Quits all sessions; the server has to say so and to close."""
        self._ask("end", LIMIT_SECONDS)
        if self.process.wait(10) != 0:
            raise Wrong(self._failure())

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except OSError:
                pass

    def _say(self, line):
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise Wrong(self._failure()) from None

    def _ask(self, line, limit):
        self._say(line)
        return self._answer(limit)

    def _answer(self, limit):
        line = self._line(limit)
        try:
            return json.loads(line)
        except ValueError:
            raise Wrong(f"load {self.name}: said {line[:80]!r}") from None

    def _line(self, limit):
        end = time.monotonic() + limit
        output = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                raise Wrong(f"not done after {limit:.0f} s")
            piece = os.read(output, 4096)
            if not piece:
                raise Wrong(self._failure())
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _failure(self):
        """What it said before it ended."""
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
        return said[-1].removeprefix("load: ")[:200] if said else f"load {self.name}: it ended"


def _towards(program, target):
    tls = ("--tls", TLS_VERSION) if target.over_tls else ()
    return [program, "--port", target.port, *tls]


def once(program, target, *arguments):
    """Runs one of the generator's checks; returns what it says."""
    command = [*_towards(program, target), *arguments]
    try:
        return host.output_of(*command)
    except host.Unavailable as error:
        raise Wrong(str(error).removeprefix("load: load: ")) from None
