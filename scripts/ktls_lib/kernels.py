"""Debian's kernels: fetched and unpacked in a scratch folder, never installed."""

import lzma
import os
import re
import subprocess
from pathlib import Path

from . import Unavailable, output_of, run_loudly, say

# Key updates of TLS 1.3 on a socket that has kernel TLS: TLS_TX may be set again.
KEY_UPDATES = (6, 14)
# The flavour for virtual machines: a third of the size of the usual one, and it has TLS.
META_PACKAGE = "linux-image-cloud-amd64"


class Kernel:
    """An image to boot and the modules that belong to it."""

    def __init__(self, image, modules):
        self.image, self.modules = image, modules
        self.release = modules.name if modules else image.name.removeprefix("vmlinuz-")

    @property
    def has_key_updates(self):
        return version_of(self.release) >= KEY_UPDATES

    def ordered(self, wanted):
        """The wanted modules and all that they need, as (name, bytes) in the order of loading. What
        is not there is part of the kernel, or the kernel does without it."""
        files = {}
        for path in self.modules.glob("kernel/**/*.ko*") if self.modules else ():
            files[path.name.split(".")[0].replace("-", "_")] = path
        order, ordered = [], set()

        def add(name):
            if name in ordered or name not in files:
                return
            ordered.add(name)
            content = plain(files[name])
            needs = re.search(rb"\0depends=([^\0]*)\0", content)
            for needed in needs[1].decode().split(",") if needs else ():
                add(needed.replace("-", "_"))
            order.append((name, content))

        for name in wanted:
            add(name)
        return order


def version_of(release):
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def plain(path):
    """A module without its compression."""
    content = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(content)
        case ".zst":
            return subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
        case _:
            return content


def of_files(files, scratch):
    """A kernel of which somebody has the packages, or the image."""
    first = files[0]
    if first.suffix != ".deb":
        modules = Path("/lib/modules") / first.name.removeprefix("vmlinuz-")
        return Kernel(first, modules if modules.is_dir() else None)
    return unpack(files, scratch / "kernel")


def of_suite(suite, packages, scratch):
    """The newest kernel that a suite of Debian has; without one, that this machine's sources have."""
    apt = options(suite, scratch / f"apt-{suite or 'own'}")
    wanted = list(dict.fromkeys(parts(META_PACKAGE, apt)))
    if not wanted:
        raise Unavailable(f"{suite or 'the package sources'} has no {META_PACKAGE}")
    folder = packages / (suite or "own")
    folder.mkdir(parents=True, exist_ok=True)
    debs = []
    for package in wanted:
        found = list(folder.glob(f"{package}_*.deb"))
        if not found:
            say(f"downloading {package}")
            # Root's downloads would be handed to a user who cannot write here.
            unboxed = ["-o", "APT::Sandbox::User=root"]
            output_of("apt-get", "-q", *apt, *unboxed, "download", package, cwd=folder)
            found = list(folder.glob(f"{package}_*.deb"))
        debs += found
    return unpack(debs, scratch / f"kernel-{suite or 'own'}")


def options(suite, state):
    """Has apt keep what it knows in a folder of ours: that takes no root, and this machine's lists
    stay what they are."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    own = ["-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache",
           "-o", f"Dir::State::status={state}/status", "-o", "APT::Architecture=amd64"]
    if suite:
        sources = state / "sources.list"
        sources.write_text(f"deb [{signature()}] {mirror()} {suite} main\n")
        own += ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-"]
    say(f"asking for the kernels of {suite or 'this machine’s package sources'}")
    # A source that cannot be reached need not be the one with the kernel.
    subprocess.run(["apt-get", *own, "-q", "update"], stdin=subprocess.DEVNULL, timeout=300,
                   capture_output=True, check=False)
    return own


def mirror():
    """Where this machine gets Debian from."""
    form = "$(REPO_URI)"
    uris = output_of("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    for uri in uris.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise Unavailable("the package sources name no mirror of Debian: use --kernel")


def signature():
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return f"signed-by={keys}" if keys.exists() else "arch=amd64"


def parts(package, apt):
    """The packages that a kernel comes in: one, or since 7.x the image and the modules."""
    try:
        text = output_of("apt-cache", *apt, "show", "--no-all-versions", package)
    except Unavailable:
        return
    depends = " ".join(re.findall(r"^Depends: (.*)$", text, re.M))
    if re.match(r"linux-(image|binary|modules)-\d", package):
        yield package
    for needed in re.findall(r"\blinux-(?:image|binary|modules)-\d[^ ,)]*", depends):
        yield from parts(needed, apt)


def unpack(debs, into):
    for deb in debs:
        output_of("dpkg-deb", "-x", deb, into)
    images = [*into.glob("boot/vmlinuz-*"), *into.glob("usr/lib/modules/*/vmlinuz")]
    modules = [*into.glob("lib/modules/*"), *into.glob("usr/lib/modules/*")]
    if not images or not modules:
        names = ", ".join(deb.name for deb in debs)
        raise Unavailable(f"no kernel with its modules in {names}")
    return Kernel(images[0], modules[0])


def install(packages, programs):
    """Gets what is missing of `programs`, which are in `packages`."""
    def missing():
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        return [program for program in programs if not any(
            os.access(Path(folder) / program, os.X_OK) for folder in path.split(":") if folder)]

    if not missing():
        return
    wanted = sorted({packages[program] for program in missing()})
    if os.geteuid() == 0:
        say(f"installing {' '.join(wanted)}")
        run_loudly("apt-get", "-q", "update", seconds=300)
        run_loudly("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "install",
                   "--no-install-recommends", *wanted, seconds=900)
    if missing():
        raise Unavailable(f"please install {' '.join(wanted)}: sudo apt-get install "
                          f"{' '.join(wanted)}")
