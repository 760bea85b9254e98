"""In the machine: what a GiB costs the server, with kernel TLS and without."""

import subprocess
import time

from client import CERTIFICATE, PORT, Server, Wrong

NAME, MIB, ROUNDS = "measured", 64, 3
# The shortest file that is the kernel's.
SMALL_KIB, SMALL_TIMES = 64, 100
WAYS = [("kernel TLS", {"kernel": '"auto"'}, True), ("TLS in the program", {"kernel": '"off"'}, True),
        ("without TLS", {}, False)]


def run(say, put):
    put(NAME, MIB << 20)
    put("measured-small", SMALL_KIB << 10)
    costs = {way: [] for way, *_ in WAYS}
    for number in range(ROUNDS):
        say(f"  round {number + 1} of {ROUNDS}")
        for way, keys, private in WAYS:
            with Server(**keys) as server:
                fetch(NAME, private)
                before, started = server.cpu_seconds(), time.monotonic()
                fetch(NAME, private)
                cost = (server.cpu_seconds() - before) * 1024 / MIB
                rate = MIB / (time.monotonic() - started)
                before = server.cpu_seconds()
                fetch("measured-small", private, SMALL_TIMES)
                small = (server.cpu_seconds() - before) / SMALL_TIMES
            costs[way].append((cost, rate, small))
    for way, figures in costs.items():
        cost, rate, small = (sorted(column)[ROUNDS // 2] for column in zip(*figures))
        say(f"measured: {way}: {cost:.3f} CPU-s per GiB, {rate:.0f} MiB/s; "
            f"{small * 1e6:.0f} CPU-µs for {SMALL_KIB} KiB (medians of {ROUNDS})")


def fetch(name, private, times=1):
    protected = ["--ssl-reqd", "--cacert", CERTIFICATE] if private else []
    url = f"ftp://127.0.0.1:{PORT}/{name}"
    urls = []
    for _ in range(times):
        urls += ["--output", "/dev/null", url]
    done = subprocess.run(["curl", "--silent", "--show-error", *protected, *urls],
                          timeout=600, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Wrong(f"curl: {done.stderr.strip()}")
