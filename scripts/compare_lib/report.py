"""What came out, as a Markdown table with all that is needed to judge it."""

import os
import statistics
import sys
import time
from dataclasses import dataclass

from . import host, meter, servers

# Kernel workers are told about from this part of a server's own time on.
_TELL_FROM = 0.05


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    unit: str
    # From seconds (or bytes) to the unit.
    scale: float
    # None: memory.
    load: object


def progress(text):
    print(text, file=sys.stderr, flush=True)


class Results:
    def __init__(self):
        self.titles, self.versions = {}, []
        self.failed, self.reasons = {}, {}
        self.values, self.elsewhere = {}, {}
        self.lines = []
        self.targets = {}

    def describe(self, cpus, account, options):
        busy = os.getloadavg()[0]
        kernel = os.uname()
        method = account.method
        if meter.interrupts_apart():
            method += ", and the interrupts of the server's CPU, which this kernel counts apart"
        several = "1 round" if options.rounds == 1 else f"{options.rounds} interleaved rounds"
        self.lines = [
            f"Date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}",
            f"Machine: {host.cpu_model()}, {os.cpu_count()} CPUs; {cpus}",
            f"Kernel: {kernel.sysname} {kernel.release} {kernel.machine}",
            f"Servers: {', '.join(self.versions)}",
            f"CPU time by: {method}",
            f"Measured: {several}, {options.seconds:g} s per case and "
            "round, each round with servers started anew",
        ]
        if busy > 0.3:
            self.lines.append(
                f"**The machine was busy with other things** (load {busy:.2f} before the start): "
                "do not trust small differences")

    def title(self, target):
        self.titles[target.name] = target.title
        self.targets[target.name] = target
        if target.version:
            self.versions.append(f"{target.title} {target.version}")

    def unavailable(self, name, reason):
        self.failed[name] = str(reason)
        progress(f"{name}: {reason}")

    def impossible(self, case, target, reason):
        self.reasons[case.name, target.name] = reason

    def is_impossible(self, case, target):
        return (case.name, target.name) in self.reasons

    def add(self, case, target, value, elsewhere):
        key = case.name, target.name
        self.values.setdefault(key, []).append(value * case.scale)
        self.elsewhere.setdefault(key, []).append(elsewhere * case.scale)

    def last(self, case, target):
        return f"{_number(self.values[case.name, target.name][-1])} {case.unit}"

    def table(self, cases):
        names = [name for name in servers.NAMES if name in self.titles]
        out = ["# FTP servers compared", ""]
        out += [f"- {line}" for line in self.lines]
        out += ["", "Server CPU time (or memory) per unit of work; less is better. "
                "Median (min–max).", ""]
        out.append("| work | unit | " + " | ".join(self.titles[name] for name in names) + " |")
        out.append("|---|---|" + "---|" * len(names))
        for case in cases:
            cells = [self._cell(case, name) for name in names]
            out.append(f"| {case.title} | {case.unit} | " + " | ".join(cells) + " |")
        notes = self._missing(cases, names) + self._notes(cases, names)
        if notes:
            out += [""] + [f"- {note}" for note in notes]
        return "\n".join(out) + "\n"

    def _cell(self, case, name):
        values = self.values.get((case.name, name))
        if not values or (case.name, name) in self.reasons:
            return "–"
        median = _number(statistics.median(values))
        if len(values) == 1:
            return median
        return f"{median} ({_number(min(values))}–{_number(max(values))})"

    def _missing(self, cases, names):
        """Why there is nothing, the cases of one reason together."""
        notes = [f"{name}: not measured: {reason}" for name, reason in self.failed.items()]
        together = {}
        for case in cases:
            for name in names:
                reason = self.reasons.get((case.name, name))
                if reason:
                    together.setdefault((name, reason), []).append(case.title)
        for (name, reason), titles in together.items():
            rest = [case.title for case in cases if case.title not in titles]
            what = "; ".join(titles)
            if len(titles) > len(rest) > 0:
                what = f"all but {'; '.join(rest)}"
            notes.append(f"–: {self.titles[name]}, {what}: {reason}")
        return notes

    def _notes(self, cases, names):
        notes = []
        for case in cases:
            for name in names:
                values = self.values.get((case.name, name))
                if not values or (case.name, name) in self.reasons:
                    continue
                beside = statistics.median(self.elsewhere[case.name, name])
                if beside > _TELL_FROM * statistics.median(values):
                    notes.append(
                        f"{self.titles[name]}, {case.title}: while it ran, shared kernel workers "
                        f"took another {_number(beside)} {case.unit} per unit, not in the table "
                        "(clean-up a server leaves to the kernel, and whatever else they did)")
        for name in names:
            if not self.targets[name].asks_password:
                notes.append(f"{self.titles[name]} lets anonymous in at USER and asks for no "
                             "password: its login is a command shorter")
            asked, refused = self.targets[name].passive_asked, self.targets[name].passive_refused
            if refused:
                notes.append(f"{self.titles[name]} answered {refused} of {asked} EPSV and PASV for "
                             "4 KiB files with 425; they were repeated")
        order = {True: [], False: []}
        for name in names:
            if self.targets[name].listing_sorted is not None:
                order[self.targets[name].listing_sorted].append(self.titles[name])
        if order[True] and order[False]:
            notes.append(f"Listings are sorted by {', '.join(order[True])}, and come in the "
                         f"directory's order from {', '.join(order[False])}")
        if any(case.load is None for case in cases):
            notes.append("Memory is the growth of the proportional set size of all processes by "
                         "200 logins, divided by 200; the kernel's own memory (sockets, and tables "
                         "and stacks of processes) is not in it")
        return notes


def _number(value):
    """Three digits that count."""
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:.0f}"
    for decimals in range(1, 6):
        if magnitude >= 10 ** (2 - decimals):
            return f"{value:.{decimals}f}"
    return f"{value:.5f}" if magnitude >= 1e-5 else "0"
