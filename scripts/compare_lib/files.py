"""The files that are served, and the places that are written to.

All content is one pattern, which the load generator writes and knows again.
"""

import os
import random
import shutil
from pathlib import Path

from . import host

SMALL = ("small.bin", 4 << 10)
MEDIUM = ("medium.bin", 128 << 20)
BIG = ("big.bin", 1 << 30)
COLD = tuple((f"disk/cold-{number}.bin", 1 << 30) for number in range(1, 5))
# In the page cache of a disk's file system: what most servers send.
DISK_BIG = ("disk/big.bin", 1 << 30)
MANY = {"many-10k": 10_000, "many-100k": 100_000}
MEMORY_UP, DISK, DISK_UP = "up", "disk", "disk/up"
# The big file twice (uploads), the other ones, and 110 000 names.
SITE_BYTES = 2 * BIG[1] + (512 << 20)


class Site:
    """The directory that is served, in memory, with a folder of a disk in it."""

    def __init__(self, root, owner, private):
        """`private`: whether mounts and network are of this process alone."""
        self.root, self.owner, self.private = root, owner, private
        # Where the files of `disk` are, and why there are none.
        self.disk, self.no_disk = None, "needs mounts of its own (root)"
        self.names = {}

    def show_disk(self, folder, cleanup):
        (self.root / DISK).mkdir()
        host.bind(folder, self.root / DISK)
        cleanup.callback(host.unmount, self.root / DISK)
        self.disk, self.no_disk = folder, None

    def fill(self, wanted, program):
        """Writes the files that are wanted: `program` is the load generator."""
        need = BIG[1] if {BIG[0], MEMORY_UP} & wanted else 0
        if min(host.available(), shutil.disk_usage(self.root).free) < 2 * need + (400 << 20):
            raise SystemExit(f"compare: {(2 * need >> 20) + 400} MiB of free memory are needed")
        for name, size in (SMALL, MEDIUM, BIG):
            if name in wanted:
                self._file(self.root / name, size, program)
        for name, count in MANY.items():
            if name in wanted:
                self.names[name] = self._directory(self.root / name, count)
        for name in (MEMORY_UP, DISK_UP):
            if name in wanted and (self.disk or name == MEMORY_UP):
                folder = self.root / name
                folder.mkdir()
                os.chown(folder, *self.owner)
        if self.disk:
            self._fill_disk([file for file in (*COLD, DISK_BIG) if file[0] in wanted], program)

    def _fill_disk(self, wanted, program):
        free = shutil.disk_usage(self.disk).free
        # What is uploaded, twice.
        need = sum(size for _, size in wanted) + 2 * BIG[1]
        if free < need:
            self.no_disk = f"{self.disk} has {free >> 30} GiB free, {need >> 30} are needed"
            return
        for name, size in wanted:
            self._file(self.root / name, size, program)
        host.sync(self.disk)

    @staticmethod
    def _file(path, size, program):
        host.output_of(program, "fill", "--path", path, "--size", size)
        path.chmod(0o644)

    @staticmethod
    def _directory(folder, count):
        # Created in no order and with dates of two years, as directories are that have grown.
        chance = random.Random(959)
        kinds = ("alpha", "b", "release-notes")
        names = [f"{chance.choice(kinds)}-{number:06}.dat" for number in range(count)]
        now = Path("/proc/self").stat().st_mtime
        folder.mkdir()
        folder.chmod(0o755)
        for name in chance.sample(names, count):
            descriptor = os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o644)
            os.fchmod(descriptor, 0o644)
            os.utime(descriptor, (now, now - chance.randrange(86400, 2 * 365 * 86400)))
            os.close(descriptor)
        return sorted(names)

    def empty(self, name):
        """Removes what was uploaded to a folder."""
        for path in (self.root / name).iterdir():
            path.unlink()

    def check_uploads(self, name, size, count, program):
        """Has everything arrived that was uploaded, byte for byte?"""
        paths = list((self.root / name).iterdir())
        if len(paths) != count:
            return f"{len(paths)} files are there after {count} uploads"
        for path in paths:
            try:
                host.output_of(program, "check", "--path", path, "--size", size)
            except host.Unavailable as reason:
                return f"an upload arrived wrong: {reason}"
        return None

    def drop_cold(self):
        """Has the kernel forget what it read of the cold files."""
        for name, _ in COLD:
            descriptor = os.open(self.root / name, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
