"""The machine: what it is, and a private corner of it to measure in."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path

from . import Unavailable

USER = "ftp"

_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_LOOPBACK = "127.0.0.1"
_libc = ctypes.CDLL(None, use_errno=True)


def isolate(scratch, site, size):
    """Moves this process into mounts and a loopback of its own, where `site` is a tmpfs, the user
    ftp exists with `site` as its home, and no other program's ports are in the way. All of that
    ends with this process; the machine outside does not see it. Returns ftp's user and group."""
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    # Servers leave state there, and it holds the way to the system's log.
    _mount("tmpfs", "/run", "tmpfs", 0)
    _mount("tmpfs", site, "tmpfs", 0, f"mode=755,size={size}")
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    ftp = next((user for user in users if user[0] == USER), None)
    ids = ftp[2:4] if ftp else ["65533", "65534"]
    users = [user for user in users if user[0] != USER]
    users.append([USER, "x", *ids, "", str(site), "/usr/sbin/nologin"])
    passwd = scratch / "passwd"
    passwd.write_text("".join(":".join(user) + "\n" for user in users))
    passwd.chmod(0o644)
    _mount(passwd, "/etc/passwd", None, _MS_BIND)
    with socket.socket() as any_socket:
        request = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1] | _IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))
    # 18 000 sessions beside what waits for its end, all of one address, above the passive ports.
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("38000 65000")
    return int(ids[0]), int(ids[1])


def use_congestion_control(name):
    """Has TCP over the loopback of this process's own use it, whatever the machine outside uses."""
    output_of("ip", "route", "replace", "local", _LOOPBACK, "dev", "lo", "congctl", name,
              "table", "local")


def congestion_control():
    """By what a connection over this process's loopback is controlled."""
    with socket.create_server((_LOOPBACK, 0)) as listener, \
            socket.create_connection(listener.getsockname()) as connection:
        name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


def bind(source, target):
    """Shows a folder at another place."""
    _mount(source, target, None, _MS_BIND)


def sync(folder):
    """Has the file system of a folder written out."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs {folder}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def send_buffers(limit):
    """Bounds what the kernel holds for a connection that is slow; for our own network only."""
    setting = Path("/proc/sys/net/ipv4/tcp_wmem")
    before = setting.read_text()
    least, usual, _ = before.split()
    setting.write_text(f"{least} {min(int(usual), limit)} {limit}")
    try:
        yield
    finally:
        setting.write_text(before)


def available():
    """Bytes of memory that programs could have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise Unavailable("/proc/meminfo has no MemAvailable")


def file_system(folder):
    """The type of the file system that a folder is on."""
    kind, longest = "unknown", -1
    folder = str(Path(folder).resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, this, *_ = line.split()
        inside = place == "/" or folder == place or folder.startswith(place + "/")
        if inside and len(place) >= longest:
            kind, longest = this, len(place)
    return kind


def unmount(site):
    _libc.umount2(os.fsencode(site), _MNT_DETACH)


def _mount(source, target, kind, flags, data=None):
    source, target, kind, data = (
        None if text is None else os.fsencode(text) for text in (source, target, kind, data)
    )
    _call("mount", source, target, kind, ctypes.c_ulong(flags), data)


def _call(name, *args):
    if getattr(_libc, name)(*args) != 0:
        error = ctypes.get_errno()
        raise Unavailable(f"{name}: {os.strerror(error)}")


def die_with_parent():
    """For a child between fork and exec."""
    _libc.prctl(1, 9)


def cpus(server, client):
    """The CPUs for the servers and for the load: the last ones, as the first has most interrupts,
    and not two threads of one core."""
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in (server, client):
        if cpu is not None and cpu not in allowed:
            raise SystemExit(f"compare: CPU {cpu} is not among those this process may use")
    if len(allowed) < 2:
        raise SystemExit("compare: two CPUs are needed: one for the server, one for the load")
    if server is None:
        server = next(cpu for cpu in reversed(allowed) if cpu != client)
    if client is None:
        rest = [cpu for cpu in reversed(allowed) if cpu != server]
        client = next((cpu for cpu in rest if cpu not in siblings(server)), rest[0])
    if server == client:
        raise SystemExit("compare: server and load need a CPU each")
    return server, client


def siblings(cpu):
    """The CPUs that are threads of the same core."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    found = set()
    for part in path.read_text().strip().split(",") if path.exists() else []:
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "cpu model", "hardware")):
            return line.split(":", 1)[1].strip()
    return os.uname().machine


def output_of(*command, say="", **options):
    """What a command writes to standard output; `say` is what it reads."""
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=300,
            input=say, **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise Unavailable(f"{Path(command[0]).name}: {last}")
    return done.stdout
