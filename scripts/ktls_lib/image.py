"""What the machine runs: an initramfs with the server, clients, and the test."""

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path

from . import Unavailable, output_of

# The kernel's crypto finds these by itself where there is a modprobe; here is none.
MODULES = ["virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4",
           "aesni_intel", "ctr", "ghash_generic", "gcm"]
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /srv /sbin
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmp /dev/shm
mount -t tmpfs run /run
ip link set lo up
for module in $(cat /modules/first); do insmod /modules/$module.ko; done
mount -t ext4 /dev/vda /srv
python3 -B /test/guest.py </dev/null
sync
poweroff -f
"""
PASSWD = "root:x:0:0::/:/bin/sh\nftp:x:1000:1000::/srv:/bin/sh\n"
GROUP = "root:x:0:\nftp:x:1000:\n"


class Archive:
    """A cpio archive of the form "newc", which the kernel unpacks into its first file system
    (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self._entries = {}

    def add(self, path, content, mode=0o644):
        path = path.strip("/")
        self._folder(path)
        self._entries[path] = (stat.S_IFREG | mode, content)

    def link(self, path, target):
        path = path.strip("/")
        self._folder(path)
        self._entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def copy(self, source):
        """A file at the place where it is here."""
        source = Path(source)
        mode = 0o755 if source.stat().st_mode & 0o111 else 0o644
        self.add(str(source), source.read_bytes(), mode)

    def program(self, source, place=None, content=None):
        """A program, or a module of one, with the libraries that it is linked with."""
        if place:
            self.add(place, content or Path(source).read_bytes(), 0o755)
        else:
            self.copy(source)
        for library in libraries(source):
            self.copy(library)

    def write(self, to):
        with to.open("wb") as file:
            for number, (name, (mode, content)) in enumerate(self._entries.items(), 1):
                self._record(file, number, name, mode, content)
            self._record(file, 0, "TRAILER!!!", 0, b"")

    def _folder(self, path):
        for folder in reversed(Path(path).parents):
            if str(folder) != ".":
                self._entries.setdefault(str(folder), (stat.S_IFDIR | 0o755, b""))

    @staticmethod
    def _record(file, number, name, mode, content):
        name = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        file.write(header + b"\0" * (-len(header) % 4))
        file.write(content + b"\0" * (-len(content) % 4))


def libraries(program):
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    if "not found" in done.stdout:
        raise Unavailable(f"{program} lacks libraries: {done.stdout.strip()}")
    return re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout)


def build(kernel, program, settings, scratch):
    """Makes the initramfs for one kernel; returns its path."""
    archive = Archive()
    archive.add("init", INIT.encode(), 0o755)
    archive.add("etc/passwd", PASSWD.encode())
    archive.add("etc/group", GROUP.encode())
    archive.add("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")
    archive.add("bin/busybox", Path(which("busybox")).read_bytes(), 0o755)
    add_modules(archive, kernel)
    stripped = scratch / "ringftpd"
    if subprocess.run(["strip", "-o", stripped, program], check=False).returncode != 0:
        stripped = program
    archive.program(program, "usr/bin/ringftpd", stripped.read_bytes())
    archive.program(which("curl"))
    archive.program(which("openssl"))
    if shutil.which("lftp"):
        archive.program(which("lftp"))
    add_python(archive)
    here = Path(__file__).parent
    for name in ("guest.py", "client.py", "measure.py"):
        archive.add(f"test/{name}", (here / name).read_bytes())
    archive.add("test/settings.json", json.dumps(settings).encode())
    to = scratch / "initramfs"
    archive.write(to)
    return to


def add_modules(archive, kernel):
    """`first` are loaded at the start, `tls` by the test, which begins without."""
    first = kernel.ordered(MODULES)
    both = kernel.ordered([*MODULES, "tls"])
    names = [name for name, _ in first]
    later = [name for name, _ in both if name not in names]
    if kernel.modules and "tls" not in later:
        raise Unavailable(f"{kernel.release} has no module tls")
    for name, content in both:
        archive.add(f"modules/{name}.ko", content)
    archive.add("modules/first", "\n".join(names).encode())
    archive.add("modules/tls", "\n".join(later).encode())


def add_python(archive):
    """Debian's Python with what of its library the test may import."""
    python = Path("/usr/bin/python3")
    if not python.exists():
        raise Unavailable("please install python3: sudo apt-get install python3")
    archive.program(python.resolve())
    archive.link("usr/bin/python3", str(python.resolve()))
    ask = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = Path(output_of(python, "-c", ask).strip())
    left_out = {"test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "pydoc_data",
                "distutils", "__pycache__", "dist-packages"}
    for path in sorted(library.rglob("*")):
        if left_out & set(path.relative_to(library).parts) or not path.is_file():
            continue
        if path.suffix == ".so":
            archive.program(path)
        elif path.suffix == ".py":
            archive.copy(path)


def which(program):
    found = shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")
    if not found:
        raise Unavailable(f"{program} is not installed")
    return found
