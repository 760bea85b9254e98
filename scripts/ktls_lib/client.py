"""In the machine: a server to talk to, clients, and what the kernel counts."""

import ftplib
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

FOLDER = Path("/srv/pub")
CERTIFICATE = "/run/localhost.pem"
PORT = 2121
# What takes longer hangs.
DEADLINE = 120


class Wrong(Exception):
    """Something did not happen as it should."""


def counters():
    """What /proc/net/tls_stat counts; nothing without the module."""
    try:
        lines = Path("/proc/net/tls_stat").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {name: int(value) for name, value in (line.split() for line in lines)}


class Server:
    """A server with these keys of the section `tls`, beside those that it has always."""

    def __init__(self, log="info", **tls):
        keys = "".join(f"{key} = {value}\n" for key, value in tls.items())
        self.config = Path("/run/ringftpd.toml")
        self.config.write_text(f"""
[server]
listen = ["127.0.0.1:{PORT}", "[::1]:{PORT}"]
user = "ftp"
[data]
passive_ports = "30000-30199"
active_source_port = 0
[tls]
certificates = ["{CERTIFICATE}"]
{keys}
[anonymous]
enabled = true
root = "{FOLDER}"
access = "read-write"
[users]
file = "/srv/users.toml"
state = "/srv"
[log]
level = "{log}"
[admin]
socket = "/run/admin.sock"
""")
        self.log = Path("/run/ringftpd.log")

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ringftpd", "serve", "--config", self.config], stdout=log, stderr=log)
        until(lambda: self._answers(), "the server does not answer")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Wrong("the server does not end") from None

    def _answers(self):
        if self.process.poll() is not None:
            raise Wrong(f"the server has ended: {self.text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", PORT), 10) as connection:
                return connection.recv(100).startswith(b"220")
        except OSError:
            return False

    def text(self):
        return self.log.read_text(errors="replace")

    def check(self):
        done = subprocess.run(["ringftpd", "check", "--config", self.config], timeout=DEADLINE,
                              capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def cpu_seconds(self):
        """User and system time of all its threads, those of its rings among them."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(holds, otherwise, seconds=DEADLINE):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Wrong(otherwise)
        time.sleep(0.02)


class Client(ftplib.FTP_TLS):
    """A session. Its data connections resume the session of its control connection, and one that
    ends without close_notify is an error."""

    def __init__(self, version=None, ciphers=None, active=False, host="127.0.0.1", private=True):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(CERTIFICATE)
        if version:
            context.minimum_version = context.maximum_version = {
                "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        if ciphers:
            context.set_ciphers(ciphers)
        super().__init__(context=context, timeout=DEADLINE)
        self.connect(host, PORT)
        self.login()
        if private:
            self.prot_p()
        self.set_pasv(not active)
        self.voidcmd("TYPE I")

    def ntransfercmd(self, cmd, rest=None):
        data, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            data = self.context.wrap_socket(
                data, server_hostname=self.host, session=self.sock.session,
                suppress_ragged_eofs=False)
        return data, size

    def fetch(self, name, offset=0):
        """Downloads a file and compares it with what it should be."""
        started = time.monotonic()
        with self.transfercmd(f"RETR {name}", offset or None) as connection:
            cipher = connection.cipher() if self._prot_p else None
            length = same(connection, FOLDER / name, offset)
        self.voidresp()
        return length / max(time.monotonic() - started, 1e-6), cipher

    def read_all(self, command):
        with self.transfercmd(command) as connection:
            content = bytearray()
            while piece := connection.recv(1 << 16):
                content += piece
        self.voidresp()
        return bytes(content)

    def answer(self):
        """The next reply, whatever it is."""
        return self.getmultiline()


def same(connection, path, offset=0):
    buffer, length = memoryview(bytearray(1 << 18)), 0
    with path.open("rb") as file:
        file.seek(offset)
        while count := connection.recv_into(buffer):
            if file.read(count) != buffer[:count]:
                raise Wrong(f"{path.name}: other bytes within {count} from {offset + length}")
            length += count
        if file.read(1):
            raise Wrong(f"{path.name}: ended after {length} bytes")
    return length


def noise(size):
    """Bytes of which no two parts are alike."""
    block = os.urandom(min(size, 1 << 20))
    written = 0
    while written < size:
        piece = written.to_bytes(8, "big") + block[8:]
        yield piece[:size - written]
        written += len(block)


def put(name, size, folder=FOLDER):
    path = folder / name
    with path.open("wb") as file:
        for piece in noise(size):
            file.write(piece)
    os.chown(path, 1000, 1000)
    return path
