"""Debian's packages: fetched, unpacked in a scratch folder, never installed."""

import os
import re

from . import Unavailable, host


def unpack(package, debs, root):
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


def complete(binary, debs, root):
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
            unpack(package, debs, root)
        tried |= wanted


def _installed(package):
    try:
        status = host.output_of("dpkg-query", "-W", "-f", "${Status}\n", package)
    except Unavailable:
        return False
    return "install ok installed" in status
