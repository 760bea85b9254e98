"""In the machine: the test itself. What it says goes to the console, and from there to whoever
started scripts/test-ktls."""

import ftplib
import json
import os
import ssl
import subprocess
import threading
import time
import traceback
from pathlib import Path

import measure
from client import (CERTIFICATE, DEADLINE, FOLDER, PORT, Client, Server, Wrong, counters, put, same,
                    until)

SETTINGS = json.loads(Path("/test/settings.json").read_text())
MIB = 1 << 20
SIZES = [0, 1, 16383, 16384, 16385, 100_000, MIB - 1, 5 * MIB + 3]
# Less is not worth the kernel's while (transfer::kernel).
KERNEL_BYTES_MIN = 64 << 10
VERSIONS = [("1.3", None), ("1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            ("1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")]
failures = []


def say(text):
    for line in text.splitlines():
        print(f"ktls> {line}", flush=True)


def main():
    release = os.uname().release
    say(f"Linux {release} is up")
    try:
        prepare()
        part("without the module tls", without_module)
        offer_module()
        part("with it", with_module)
        part("switched off", switched_off)
        part("key updates", key_updates)
        if SETTINGS["measure"]:
            part("measuring", lambda: measure.run(say, put))
    except Exception:  # whatever it is, the verdict has to come
        failures.append("the test itself")
        say(traceback.format_exc())
    if failures:
        say(f"failed: {', '.join(failures)}")
    say(f"verdict: {'failed' if failures else 'passed'} on Linux {release}")


def prepare():
    FOLDER.mkdir()
    os.chown(FOLDER, 1000, 1000)
    os.chmod("/srv", 0o777)
    Path("/srv/users.toml").touch()
    names = [word for name in ("localhost", "127.0.0.1", "::1") for word in ("--host", name)]
    subprocess.run(["ringftpd", "cert", "self-signed", *names, "--file", CERTIFICATE], check=True,
                   timeout=DEADLINE, stdout=subprocess.DEVNULL)
    os.chown(CERTIFICATE, 1000, 1000)
    for size in SIZES:
        put(f"size-{size}", size)
    put("big", 256 * MIB)
    put("large", 64 * MIB)
    put("some", 8 * MIB)
    (FOLDER / "text").write_bytes(b"".join(b"line %d\n" % number for number in range(50_000)))
    (FOLDER / "many").mkdir()
    for number in range(2000):
        (FOLDER / f"many/file-{number}").touch()


def offer_module():
    """From now on the kernel can load it when somebody asks for it who may."""
    script = Path("/sbin/modprobe")
    script.write_text("""#!/bin/sh
case "$*" in
    *tcp-ulp-tls*) for module in $(cat /modules/tls); do insmod /modules/$module.ko; done ;;
esac
""")
    script.chmod(0o755)


def part(name, work):
    say(f"{name}:")
    try:
        work()
    except Exception as error:
        failed(name, error)


def failed(name, error):
    failures.append(name)
    say(f"  FAILED {name}: {error!r}")
    if not isinstance(error, Wrong):
        say(traceback.format_exc())


def step(name, work, kernel):
    """Does something after which the kernel must have protected so many connections more, and none
    any longer."""
    before = counters().get("TlsTxSw", 0)
    started = time.monotonic()
    try:
        told = work()
        used = counters().get("TlsTxSw", 0) - before
        if used != kernel:
            raise Wrong(f"kernel TLS was used {used} times, not {kernel}")
        until(lambda: counters().get("TlsCurrTxSw", 0) == 0, "kernel TLS does not end", 20)
    except Exception as error:
        failed(name, error)
        return
    told = f", {told}" if told else ""
    say(f"  ok: {name} (kernel TLS: {used}, {time.monotonic() - started:.1f} s{told})")


def without_module():
    with Server() as server:
        check(server, "off")
        step("a download", lambda: rate(Client().fetch("some")), 0)


def switched_off():
    with Server(kernel='"off"'):
        step("a download", lambda: rate(Client().fetch("some")), 0)


def with_module():
    with Server() as server:
        check(server, "on")
        for version, ciphers in VERSIONS:
            sizes(version, ciphers)
        step("256 MiB", lambda: rate(Client("1.3").fetch("big")), 1)
        for suite, times in [("TLS_AES_128_GCM_SHA256", 1), ("TLS_AES_256_GCM_SHA384", 1),
                             ("TLS_CHACHA20_POLY1305_SHA256", 0)]:
            step(f"curl, TLS 1.3, {suite}", lambda: curl(["--tls13-ciphers", suite]), times)
        step("curl, TLS 1.2, ChaCha20", lambda: curl(
            ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"]), 0)
        if Path("/usr/bin/lftp").exists():
            step("lftp (GnuTLS)", lftp, 1)
        for offset in [1, 16384, 5 * MIB + 7]:
            step(f"REST {offset}", lambda: rate(Client().fetch("some", offset)), 1)
        step("to the end from the end", lambda: rate(Client().fetch("some", 8 * MIB)), 0)
        step("active", lambda: rate(Client(active=True).fetch("some")), 1)
        step("IPv6", lambda: rate(Client(host="::1").fetch("some")), 1)
        step("TYPE A", text, 0)
        step("listings", listings, 0)
        step("uploads", uploads, 0)
        step("without TLS", lambda: rate(Client(private=False).fetch("some")), 0)
        step("one session, 20 downloads", in_a_row, 20)
        step("24 sessions at a time", at_a_time, 24)
        step("a cold file", cold, 1)
        step("a slow client", slow, 1)
        step("the client leaves", leaves, 1)
        step("ABOR", aborts, 1)
        step("ABOR of a client that reads nothing", aborts_unread, 1)
        step("a client that asks for other keys", asks_for_keys, 1)
        step("a file that becomes shorter", shrinks, 1)
        step("a download after all that", lambda: rate(Client().fetch("some")), 1)
    words = server.text()
    if "panicked" in words:
        raise Wrong(words[-2000:])


def sizes(version, ciphers):
    def work():
        client = Client(version, ciphers)
        for size in SIZES:
            _, cipher = client.fetch(f"size-{size}")
        client.quit()
        return cipher[0]
    large = sum(size >= KERNEL_BYTES_MIN for size in SIZES)
    step(f"{len(SIZES)} sizes, TLS {version}", work, large)


def check(server, word):
    """What `ringftpd check` says of it."""
    lines = [line for line in server.check().splitlines() if "kernel TLS" in line]
    say(f"  ringftpd check: {lines[0].strip() if lines else 'nothing of kernel TLS'}")
    if not lines or f"kernel TLS: {word}" not in lines[0]:
        failed("ringftpd check", Wrong(f"it should say 'kernel TLS: {word}'"))


def rate(fetched):
    return f"{fetched[0] / MIB:.0f} MiB/s"


def curl(arguments, name="some"):
    command = ["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", CERTIFICATE,
               "--max-time", str(DEADLINE), *arguments, f"ftp://127.0.0.1:{PORT}/{name}"]
    got = subprocess.run(command, capture_output=True, timeout=DEADLINE + 10, check=False)
    equal(name, got.stdout, got.stderr)


def lftp(name="some"):
    script = f"set ssl:ca-file {CERTIFICATE}; set ftp:ssl-protect-data yes; " \
             f"set ftp:ssl-force yes; set ftp:ssl-allow-anonymous yes; " \
             f"set net:timeout 60; set net:max-retries 1; cat ftp://127.0.0.1:{PORT}/{name}"
    got = subprocess.run(["lftp", "--norc", "-c", script], capture_output=True,
                         timeout=DEADLINE, check=False, env={**os.environ, "HOME": "/tmp"})
    equal(name, got.stdout, got.stderr)


def equal(name, content, error):
    if content != (FOLDER / name).read_bytes():
        raise Wrong(f"{len(content)} bytes came, not those of {name}: {error.decode()}")


def text():
    client = Client()
    client.voidcmd("TYPE A")
    got = client.read_all("RETR text")
    if got != (FOLDER / "text").read_bytes().replace(b"\n", b"\r\n"):
        raise Wrong("other lines")


def listings():
    client = Client()
    for command in ["LIST many", "NLST many", "MLSD many"]:
        lines = client.read_all(command).splitlines()
        names = {line.split()[-1].rsplit(b"/", 1)[-1] for line in lines}
        if not {b"file-%d" % number for number in range(2000)} <= names:
            raise Wrong(f"{command}: {len(lines)} lines")


def uploads():
    source = (FOLDER / "some").read_bytes()
    for active in [False, True]:
        client = Client(active=active)
        for command in ["STOR up", "APPE up"]:
            with client.transfercmd(command) as connection:
                connection.sendall(source)
                connection.unwrap()
            client.voidresp()
        if (FOLDER / "up").read_bytes() != source * 2:
            raise Wrong("another file")


def in_a_row():
    client = Client()
    for number in range(20):
        client.fetch("size-100000" if number % 2 else f"size-{MIB - 1}")


def at_a_time():
    errors = []

    def one(number):
        try:
            Client("1.2" if number % 3 == 0 else "1.3", active=number % 4 == 0).fetch("some")
        except Exception as error:
            errors.append(error)

    started = time.monotonic()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    if errors:
        raise Wrong(f"{len(errors)} failed: {errors[0]!r}")
    return f"{24 * 8 / (time.monotonic() - started):.0f} MiB/s"


def cold():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    before = sectors_read()
    # What this side compares with must not bring the pages back first.
    client = Client()
    got = client.read_all("RETR some")
    read = (sectors_read() - before) * 512
    if read < 8 * MIB:
        raise Wrong(f"only {read} bytes came from the disk")
    equal("some", got, b"")


def sectors_read():
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[2] == "vda":
            return int(fields[5])
    raise Wrong("no disk")


def slow():
    client = Client()
    connection = client.transfercmd("RETR some")
    received = 0
    for _ in range(10):
        time.sleep(0.1)
        received += len(connection.recv(1000))
    same(connection, FOLDER / "some", received)
    client.voidresp()


def begun(client, name="big"):
    """A download of which something has come."""
    connection = client.transfercmd(f"RETR {name}")
    connection.recv(1)
    return connection


def leaves():
    client = Client()
    begun(client).close()
    expect(client, "426")
    client.voidcmd("NOOP")


def aborts():
    client = Client()
    connection = begun(client)
    client.putcmd("ABOR")
    expect(client, "426")
    expect(client, "226")
    broken(connection)
    client.voidcmd("NOOP")


def aborts_unread():
    client = Client()
    connection = begun(client)
    # Until nothing fits into the sockets any more.
    time.sleep(2)
    client.putcmd("ABOR")
    expect(client, "426")
    expect(client, "226")
    connection.close()
    client.fetch("size-1")


def asks_for_keys():
    """The client's KeyUpdate asks for one of the server, whose kernel may be too old for that."""
    before = counters()["TlsTxRekeyOk"] if SETTINGS["key_updates"] else 0
    client = Client("1.3")
    port = client.makepasv()[1]
    client.putcmd("RETR large")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-CAfile",
               CERTIFICATE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as openssl:
        got = bytearray(openssl.stdout.read(4 * MIB))
        openssl.stdin.write(b"K\n")
        openssl.stdin.flush()
        got += openssl.stdout.read()
        openssl.stdin.close()
    client.getresp()
    client.voidresp()
    # Before the file it prints what the handshake has come to.
    if (FOLDER / "large").read_bytes() not in got:
        raise Wrong(f"other bytes in {len(got)}")
    if SETTINGS["key_updates"] and counters()["TlsTxRekeyOk"] - before != 1:
        raise Wrong("the keys were not renewed")


def shrinks():
    path = put("shrinking", 64 * MIB)
    client = Client()
    connection = begun(client, "shrinking")
    os.truncate(path, 2 * MIB)
    broken(connection)
    expect(client, "451")


def broken(connection):
    """The rest must not look like the whole."""
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        connection.close()
        return
    raise Wrong("a part looks like the whole")


def expect(client, code):
    reply = client.answer()
    if not reply.startswith(code):
        raise Wrong(f"{reply!r}, not {code}")


def key_updates():
    """With keys that are good for 16 MiB: where the kernel cannot take another, files that need one
    are protected by the program."""
    can = SETTINGS["key_updates"]
    with Server(renew_keys_after='"16 MiB"') as server:
        before = counters().get("TlsTxRekeyOk", 0)
        step("256 MiB, TLS 1.3", lambda: rate(Client("1.3").fetch("big")), int(can))
        renewed = counters().get("TlsTxRekeyOk", 0) - before
        say(f"  keys renewed in the kernel: {renewed}")
        if can and not 15 <= renewed <= 40:
            failed("key updates", Wrong(f"{renewed} renewed"))
        step("8 MiB, TLS 1.3", lambda: rate(Client("1.3").fetch("some")), 1)
        step("curl, 64 MiB", lambda: curl([], "large"), int(can))
        if Path("/usr/bin/lftp").exists():
            step("lftp, 64 MiB", lambda: lftp("large"), int(can))
        step("64 MiB, TLS 1.2, which has none", lambda: rate(Client("1.2").fetch("large")), 1)
        text = server.text()
    if "panicked" in text:
        raise Wrong(text[-2000:])


main()
