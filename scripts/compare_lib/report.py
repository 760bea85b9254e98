"""What came out: tables in Markdown with all that is needed to judge them, and the values."""

import json
import os
import statistics
import sys
import time

from . import host, limits, meter, number, plot, servers, settings, syscalls, work
from .files import DISK_BIG

# Kernel workers are told about from this part of a server's own time on.
_TELL_FROM = 0.05
# Calls that a transfer makes less often than this are the work of something else.
_CALLS_MIN = 0.05


def progress(text):
    print(text, file=sys.stderr, flush=True)


class Results:
    def __init__(self):
        self.titles, self.versions, self.targets = {}, [], {}
        self.failed, self.reasons = {}, {}
        # By case and server: by name what was measured, each round.
        self.values = {}
        self.lines = []
        self.started = time.monotonic()

    def describe(self, cpus, account, options, usual, disk):
        """`usual`: the congestion control of this machine outside of what is measured."""
        busy, congestion = os.getloadavg()[0], host.congestion_control()
        if congestion != usual:
            congestion += f" (elsewhere on this machine {usual})"
        kernel = os.uname()
        method = account.method
        if meter.interrupts_apart():
            method += ", and the interrupts of the server's CPU, which this kernel counts apart"
        several = "1 round" if options.rounds == 1 else f"{options.rounds} interleaved rounds"
        self.lines = [
            f"Date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}",
            f"Machine: {host.cpu_model()}, {os.cpu_count()} CPUs, "
            f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of "
            f"memory; {cpus}",
            f"Kernel: {kernel.sysname} {kernel.release} {kernel.machine}; TCP's congestion control: "
            f"{congestion}",
            f"Servers: {', '.join(self.versions)}",
            f"CPU time by: {method}",
            f"Measured: {several}, {options.seconds:g} s per case and "
            "round, each round with servers started anew",
        ]
        if disk:
            self.lines.append(disk)
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

    def add(self, case, target, found):
        lists = self.values.setdefault((case.name, target.name), {})
        for name, value in found.items():
            value = value * case.scale if name in ("cpu", "elsewhere") else value
            lists.setdefault(name, []).append(value)

    def of(self, case, name, what):
        """All rounds' values of one thing."""
        if (case.name, name) in self.reasons:
            return []
        return self.values.get((case.name, name), {}).get(what, [])

    def median(self, case, name, what):
        values = self.of(case, name, what)
        return statistics.median(values) if values else None

    def last(self, case, target):
        """What was measured just now, in a few words."""
        found = {name: values[-1] for name, values in
                 self.values[case.name, target.name].items()}
        if "syscalls" in found:
            return "counted"
        words = []
        if "cpu" in found:
            words.append(f"{number(found['cpu'])} {case.unit}")
        if "ratio" in found:
            words.append(f"× {found['ratio']:.2f}")
        if "memory" in found:
            words.append(f"{number(found['memory'])} KiB")
        if "p99" in found:
            words.append(f"p50 {number(found['p50'] / 1e3)} ms, "
                         f"p99 {number(found['p99'] / 1e3)} ms")
        return ", ".join(words)

    def names(self):
        return [name for name in servers.NAMES if name in self.titles]

    def text(self, cases, pictures=False):
        out = ["# FTP servers compared", ""]
        out += [f"- {line}" for line in self.lines]
        for title, rows, picture in self._sections(cases):
            out += ["", *title]
            if pictures and picture:
                out += ["", f"![{title[0].removeprefix('## ')}]({picture})"]
            out += ["", *rows]
        notes = self._missing(cases) + self._notes(cases)
        if notes:
            out += ["", "## Notes", ""] + [f"- {note}" for note in notes]
        return "\n".join(out) + "\n"

    def _sections(self, cases):
        """Title with text, table and picture of each that has anything to show."""
        spread = "Median (min–max)."
        clear, tls = ([case for case in cases if case.tls == over] for over in (False, True))
        sections = [
            (["## CPU time", "", f"Of the server, per unit of work; less is better. {spread}"],
             self._table(clear, "cpu", lambda case: case.unit), "cpu.svg"),
            (["## CPU time over TLS", "", f"The same for what is protected by TLS. {spread}"],
             self._table(tls, "cpu", lambda case: case.unit), "tls.svg"),
            (["## Latency", "", "p50 / p99 of one client's round trips, ms; less is better. "
              "Medians over the rounds."], self._latencies(cases), "latency.svg"),
            (["## Memory", "", f"Per session, KiB; less is better. {spread}"],
             self._table(cases, "memory", lambda _: "KiB"), "memory.svg"),
            (["## Rate", "", f"With one CPU for the server; more is better. {spread}"],
             self._table(cases, "rate", _rate_unit), "rate.svg"),
            (["## Cost of idle sessions", "", "What a unit of work costs while they are there, in "
              f"times of what it costs without them. {spread}"],
             self._table(cases, "ratio", lambda _: "×"), None),
            (["## Bytes moved per wakeup", "", "KiB for each time that a thread of the server "
              f"slept and was woken; more is better. {spread}"],
             self._table(cases, "wakeup", lambda _: "KiB"), None),
            (["## System calls", "", "Per transfer, by `strace -f -c`, one session; those that "
              "each of them makes."], self._calls(cases), None),
        ]
        return [section for section in sections if section[1]]

    def _table(self, cases, what, unit):
        names = [name for name in self.names() if any(self.of(c, name, what) for c in cases)]
        rows = [
            [case.title, unit(case), *(_spread(self.of(case, name, what)) for name in names)]
            for case in cases if any(self.of(case, name, what) for name in names)
        ]
        return _markdown(["work", "unit", *(self.titles[name] for name in names)], rows)

    def _latencies(self, cases):
        names = [name for name in self.names() if any(self.of(c, name, "p99") for c in cases)]
        rows = []
        for case in cases:
            cells = []
            for name in names:
                half, most = (self.median(case, name, what) for what in ("p50", "p99"))
                cells.append("–" if half is None else
                             f"{number(half / 1e3)} / {number(most / 1e3)}")
            if any(cell != "–" for cell in cells):
                rows.append([case.title, *cells])
        return _markdown(["work", *(self.titles[name] for name in names)], rows)

    def _calls(self, cases):
        case = next((case for case in cases if case.name == "syscalls"), None)
        found = {name: self.of(case, name, "syscalls")[-1] for name in self.names()
                 if case and self.of(case, name, "syscalls")}
        works = [title for title, *_ in syscalls.Traced.works]
        rows = []
        for title in works:
            cells = []
            for name in found:
                calls = found[name].get(title, {}).get("calls", {})
                kept = sorted(((count, call) for call, count in calls.items()
                               if count >= _CALLS_MIN), reverse=True)
                total = number(sum(calls.values()))
                cells.append(f"**{total}**: " + ", ".join(
                    f"{call} {number(count)}" for count, call in kept))
            rows.append([title, *cells])
        for title in works:
            cells = [found[name].get(title, {}).get("bytes_per_wait") for name in found]
            if any(cells):
                rows.append([f"{title}, KiB per call that waits", *(
                    number(cell / 1024) if cell else "– (sleeps in the transfer itself)"
                    for cell in cells)])
        return _markdown(["work", *(self.titles[name] for name in found)], rows) if found else []

    def _missing(self, cases):
        """Why there is nothing, the cases of one reason together."""
        notes = [f"{name}: not measured: {reason}" for name, reason in self.failed.items()]
        together = {}
        for case in cases:
            for name in self.names():
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

    def _notes(self, cases):
        notes = []
        once = [case.title for case in cases if case.once]
        if once:
            notes.append(f"Measured in the first round only: {'; '.join(once)}; and what takes a "
                         "server longer than 40 s")
        for case in cases:
            for name in self.names():
                used, beside = (self.median(case, name, what) for what in ("cpu", "elsewhere"))
                if used is not None and (beside or 0) > _TELL_FROM * used:
                    notes.append(
                        f"{self.titles[name]}, {case.title}: while it ran, shared kernel workers "
                        f"took another {number(beside)} {case.unit} per unit, not in the table "
                        "(clean-up a server leaves to the kernel, and whatever else they did)")
        notes += self._differences(cases)
        if any("memory" in self.values.get((c.name, n), {}) for c in cases for n in self.names()):
            notes.append("Memory is the growth of the proportional set size of all processes by "
                         "the sessions, divided by their number; the kernel's own memory (sockets, "
                         "and tables and stacks of processes) is not in it")
        return notes

    def _differences(self, cases):
        """Where servers do not do quite the same."""
        notes = []
        kinds = {case.name.split("-")[0] for case in cases}
        for name in self.names():
            target, title = self.targets[name], self.titles[name]
            if not target.asks_password:
                notes.append(f"{title} lets anonymous in at USER and asks for no "
                             "password: its login is a command shorter")
            if target.passive_refused:
                notes.append(f"{title} answered {target.passive_refused} of "
                             f"{target.passive_asked} EPSV and PASV with 425; they were repeated")
            stores = any(name in case and self.values.get((case, name))
                         for case in ("small-stor", "stor-tmpfs", "stor-ext4", "tls-stor"))
            if target.uploader and stores:
                notes.append(f"{title} lets anonymous replace no file: its uploads are those of a "
                             "virtual user in the same directory")
        if "ringftpd" in self.titles and any("stor" in case.name for case in cases):
            notes.append("ringftpd's uploads appear under their names when they are whole (its "
                         "default); the others write into the file in place")
        notes += self._tls(cases)
        order = {True: [], False: []}
        for name in self.names():
            if self.targets[name].listing_sorted is not None:
                order[self.targets[name].listing_sorted].append(self.titles[name])
        if order[True] and order[False]:
            notes.append(f"Listings are sorted by {', '.join(order[True])}, and come in the "
                         f"directory's order from {', '.join(order[False])}")
        if any("cold" in case.name for case in cases):
            notes.append(f"The slow disk gives {limits.SlowDisk.bytes_per_second // 10**6} MB/s to "
                         "the server's processes; that the files came from it is checked")
        if "pure-ftpd" in self.titles:
            notes.append(f"Pure-FTPd has {settings.PURE_FTPD_PORTS} passive ports, because it lets "
                         f"in half as many clients; the others have {settings.PASSIVE_PORTS}, and "
                         "the floor any")
        if "slow" in kinds:
            notes.append("While readers are slow, the kernel's send buffers are bounded at "
                         f"{work.Slow.send_buffer >> 10} KiB, for all servers")
        return notes

    def _tls(self, cases):
        """What was agreed upon, and how many data connections resumed."""
        notes, together, resumed = [], {}, []
        for name in self.names():
            target, title = self.targets[name], self.titles[name]
            if target.protocol:
                together.setdefault(target.protocol, []).append(title)
            if target.resumed + target.full:
                total = target.resumed + target.full
                resumed.append(f"{title} {target.resumed} of {total}")
        for (version, cipher), titles in together.items():
            version = version.removeprefix("TLSv").replace("_", ".")
            cipher = cipher.partition("AES_")[2].replace("_", "-")
            notes.append(f"TLS {version} with AES-{cipher} and a certificate on P-256: "
                         f"{', '.join(titles)}")
        if resumed:
            notes.append("Data connections that resumed the TLS session of their control "
                         f"connection: {'; '.join(resumed)}. For the generator a ticket is good "
                         "for once")
        if any(case.tls and self.of(case, "floor", "cpu") for case in cases):
            notes.append("The floor over TLS is OpenSSL as it comes, with a blocking thread for each "
                         "session")
        if any(case.tls and DISK_BIG[0] in case.files for case in cases):
            notes.append("TLS RETR 1 GiB: from the page cache of the disk's file system; without "
                         "TLS from tmpfs")
        return notes

    def write(self, folder, cases):
        """The tables, pictures of them, and all values."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in plot.all_of(self, cases).items():
            (folder / name).write_text(picture)
        (folder / "README.md").write_text(self.text(cases, pictures=True))
        (folder / "results.json").write_text(json.dumps({
            "about": self.lines,
            "notes": self._missing(cases) + self._notes(cases),
            "cases": {
                case.name: {
                    "title": case.title, "unit": case.unit,
                    "servers": {name: self.values[case.name, name] for name in self.names()
                                if (case.name, name) in self.values},
                } for case in cases
            },
        }, indent=1, ensure_ascii=False) + "\n")


def _rate_unit(case):
    return "MiB/s" if case.unit == "s/GiB" else "1/s"


def _markdown(head, rows):
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _spread(values):
    if not values:
        return "–"
    median = number(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({number(min(values))}–{number(max(values))})"
