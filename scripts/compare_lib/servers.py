"""The servers: where they come from, how they are set up alike, and their start and end."""

import json
import os
import re
import resource
import subprocess
import time
from pathlib import Path

from . import Unavailable, host, load, meter

# Debian's package, its binary, and what the table calls it.
PEERS = {
    "vsftpd": ("vsftpd", "usr/sbin/vsftpd", "vsftpd"),
    "proftpd": ("proftpd-core", "usr/sbin/proftpd", "ProFTPD"),
    "pure-ftpd": ("pure-ftpd", "usr/sbin/pure-ftpd", "Pure-FTPd"),
}
NAMES = ["ringftpd", *PEERS, "floor"]
DESCRIPTORS = 16384


class Server:
    """A server that can be started again and again."""

    def __init__(self, name, title, version, command, port, environment=None):
        self.name, self.title, self.version, self.port = name, title, version, port
        self.command = [str(part) for part in command]
        self.environment = environment or {}
        self.listing_bytes, self.listing_sorted = {}, None
        self.files_verified, self.asks_password = False, True
        self.passive_asked = self.passive_refused = 0
        self.process = self.account = None

    def start(self, scratch, cgroups, cpu):
        # Kept before anything is started: whatever happens, stop() finds it.
        self.account = meter.Cgroup(cgroups / self.name) if cgroups else meter.Tree()
        account = self.account

        def child():
            account.enter()
            os.setsid()
            os.sched_setaffinity(0, {cpu})
            host.die_with_parent()

        log = scratch / f"{self.name}.log"
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **self.environment},
                preexec_fn=child,
            )
        if not cgroups:
            account.root = self.process.pid
        end = time.monotonic() + 10
        while time.monotonic() < end and self.process.poll() is None:
            try:
                session = load.Session(self.port)
            except OSError:
                time.sleep(0.05)
                continue
            try:
                session.expect("220")
            finally:
                session.socket.close()
            return
        said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"does not start: {said[0][:200]}")

    def stop(self):
        if self.account is not None:
            self.account.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.account is not None:
            self.account.close()
        self.process = self.account = None


def raise_limits():
    """The same descriptor limit for all: enough, and not so high that closing all of them costs."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def port_of(name):
    """The control port, and the first and last of the passive ports."""
    index = NAMES.index(name)
    return 10021 + index, 12000 + 2000 * index, 13999 + 2000 * index


def ringftpd(binary, scratch, site, cpu, privileged):
    if not os.access(binary, os.X_OK):
        raise Unavailable(f"{binary} is not there: cargo build --release, or --ringftpd PATH")
    version = host.output_of(binary, "--version").split()[-1]
    port, first, last = port_of("ringftpd")
    config = scratch / "ringftpd.toml"
    user = f'user = "{host.USER}"' if privileged else ""
    config.write_text(f"""
[server]
listen = ["127.0.0.1:{port}"]
cores = "{cpu}-{cpu}"
{user}
[limits]
sessions_per_ip = 0
[data]
passive_ports = "{first}-{last}"
active_source_port = 0
[anonymous]
enabled = true
root = {json.dumps(str(site))}
[users]
enabled = false
[log]
level = "warn"
""")
    return Server("ringftpd", "ringftpd", version, [binary, "serve", "--config", config], port)


def peer(name, packages, scratch, site):
    """One of Debian's servers, from its package: fetched, unpacked, never installed."""
    package, binary, title = PEERS[name]
    debs = packages / name
    root = scratch / name
    version = _unpack(package, debs, root)
    environment = _complete(root / binary, debs, root)
    port, first, last = port_of(name)
    arguments = _SETTINGS[name](scratch, site, port, first, last)
    return Server(name, title, version, [root / binary, *arguments], port, environment)


def floor(scratch, site):
    source = Path(__file__).with_name("floor.c")
    port = port_of("floor")[0]
    binary = scratch / "floor"
    try:
        host.output_of("cc", "-O2", "-o", binary, source)
    except Unavailable as error:
        raise Unavailable(f"no C compiler, or it fails ({error})") from error
    return Server("floor", "floor (C, sendfile)", None, [binary, port, site], port)


def _unpack(package, debs, root):
    """Downloads a package unless it is there, unpacks it, and returns its version."""
    debs.mkdir(parents=True, exist_ok=True)
    if not list(debs.glob(f"{package}_*.deb")):
        # Root's downloads would be handed to a user who cannot write here.
        options = ["-o", "APT::Sandbox::User=root"]
        try:
            host.output_of("apt-get", "-q", *options, "download", package, cwd=debs)
        except Unavailable as error:
            raise Unavailable(f"{error} (package {package}; try apt-get update)") from error
    deb = next(debs.glob(f"{package}_*.deb"))
    host.output_of("dpkg", "-x", deb, root)
    return host.output_of("dpkg-deb", "-f", deb, "Version").strip()


def _complete(binary, debs, root):
    """Fetches the libraries that a binary needs and the system does not have. Returns the
    environment to run it in."""
    tried = set()
    while True:
        folders = sorted({str(path.parent) for path in root.glob("**/*.so.*")})
        environment = {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}
        missing = re.findall(r"(\S+) => not found", host.output_of(
            "ldd", binary, env={**os.environ, **environment}))
        if not missing:
            return environment
        depends = " ".join(
            host.output_of("dpkg-deb", "-f", deb, "Depends") for deb in debs.glob("*.deb"))
        wanted = set(re.findall(r"\blib[a-z0-9.+-]+", depends)) - tried
        wanted = {package for package in wanted if not _installed(package)}
        if not wanted:
            raise Unavailable(f"needs {', '.join(missing)}, which none of its packages has")
        for package in sorted(wanted):
            _unpack(package, debs, root)
        tried |= wanted


def _installed(package):
    try:
        status = host.output_of("dpkg-query", "-W", "-f", "${Status}\n", package)
    except Unavailable:
        return False
    return "install ok installed" in status


def _vsftpd(scratch, site, port, first, last):
    empty = scratch / "empty"
    empty.mkdir(mode=0o755, exist_ok=True)
    config = scratch / "vsftpd.conf"
    config.write_text(f"""\
background=NO
listen=YES
listen_address=127.0.0.1
listen_port={port}
anonymous_enable=YES
local_enable=NO
write_enable=NO
anon_root={site}
ftp_username={host.USER}
nopriv_user=nobody
secure_chroot_dir={empty}
pasv_min_port={first}
pasv_max_port={last}
max_clients=0
max_per_ip=0
xferlog_enable=NO
""")
    return [config]


def _proftpd(scratch, site, port, first, last):
    config = scratch / "proftpd.conf"
    config.write_text(f"""\
ServerType standalone
ServerName compare
DefaultAddress 127.0.0.1
SocketBindTight on
UseIPv6 off
Port {port}
PassivePorts {first} {last}
User {host.USER}
Group nogroup
UseReverseDNS off
MaxInstances none
RequireValidShell off
WtmpLog off
SystemLog none
TransferLog none
PidFile {scratch}/proftpd.pid
ScoreboardFile {scratch}/proftpd.scoreboard
<IfModule mod_delay.c>
  DelayEngine off
</IfModule>
<IfModule mod_ctrls.c>
  ControlsEngine off
</IfModule>
<Anonymous {site}>
  User {host.USER}
  Group nogroup
  UserAlias anonymous {host.USER}
  <Limit WRITE>
    DenyAll
  </Limit>
</Anonymous>
""")
    return ["--nodaemon", "--quiet", "--config", config]


def _pure_ftpd(scratch, site, port, first, last):
    # Anonymous only, no DNS, no uploads, no syslog, no TLS, and listings to the end.
    return [
        "-S", f"127.0.0.1,{port}", "-p", f"{first}:{last}", "-e", "-H", "-i", "-M", "-f", "none",
        "-Y", "0", "-c", "4096", "-C", "4096", "-L", "100000:5", "-g", scratch / "pure-ftpd.pid",
    ]


_SETTINGS = {"vsftpd": _vsftpd, "proftpd": _proftpd, "pure-ftpd": _pure_ftpd}
