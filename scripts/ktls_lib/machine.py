"""One run of qemu: boots the kernel, shows what the test says, and tells how it ended."""

import contextlib
import os
import selectors
import subprocess
import time

from . import MARK, Unavailable, say

# A kernel that says nothing for so long on a working KVM will not say anything any more. Nested
# virtualization may open /dev/kvm and then make no progress.
KVM_PATIENCE = 40


class Machine:
    def __init__(self, kernel, initramfs, disk, memory, log, verbose):
        self.kernel, self.initramfs, self.disk = kernel, initramfs, disk
        self.memory, self.log, self.verbose = memory, log, verbose

    def command(self, accelerator):
        return [
            "qemu-system-x86_64", "-accel", accelerator,
            "-cpu", "host" if accelerator == "kvm" else "max",
            "-smp", "2", "-m", str(self.memory), "-no-reboot", "-nic", "none",
            "-display", "none", "-monitor", "none", "-serial", "stdio",
            "-drive", f"file={self.disk},format=raw,if=virtio,cache=unsafe",
            "-kernel", str(self.kernel.image), "-initrd", str(self.initramfs),
            "-append", "console=ttyS0 panic=-1 quiet loglevel=4 random.trust_cpu=on",
        ]

    def run(self, accelerator, seconds):
        """Whether the test passed; None: the machine did not come up."""
        started = time.monotonic()
        verdict, is_up = None, False
        with self._process(accelerator) as process, self.log.open("wb") as log:
            for line in lines_of(process, started + seconds,
                                 lambda: is_up or accelerator != "kvm"
                                 or time.monotonic() < started + KVM_PATIENCE):
                log.write(line + b"\n")
                text = line.decode("utf-8", "replace").rstrip("\r")
                ours = text.startswith(MARK)
                if ours or self.verbose:
                    print("  " + text.removeprefix(MARK), flush=True)
                if ours:
                    is_up = True
                    if text.startswith(MARK + "verdict: "):
                        verdict = text.split("verdict: ")[1].startswith("passed")
        if not is_up:
            return None
        if verdict is None:
            say(f"the test broke off after {time.monotonic() - started:.0f} s; the console's last "
                "lines:")
            for line in self.log.read_bytes().splitlines()[-30:]:
                print("  " + line.decode("utf-8", "replace"))
        return verdict is True

    @contextlib.contextmanager
    def _process(self, accelerator):
        process = subprocess.Popen(self.command(accelerator), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def lines_of(process, deadline, goes_on):
    """The lines that a process prints, until it ends or the deadline."""
    pipe, rest = process.stdout, b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while time.monotonic() < deadline and goes_on():
            if not selector.select(1):
                continue
            read = os.read(pipe.fileno(), 65536)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            yield from lines
    if rest:
        yield rest


def accelerators(chosen):
    """What to try, best first."""
    if chosen != "auto":
        return [chosen]
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["kvm", "tcg"]
    return ["tcg"]


def make_disk(path, size):
    """An empty ext4 file system, so that the page cache can be cold."""
    with path.open("wb") as file:
        file.truncate(size)
    try:
        subprocess.run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", path], check=True,
                       capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"mke2fs (package e2fsprogs): {error}") from error
