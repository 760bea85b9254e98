"""How the servers are set up: as alike as their settings allow.

Anonymous may read and write, all but one have the same number of passive ports, and nobody writes
logs, asks DNS, limits clients or rates. With TLS they have the same certificate, let data connections
resume, and differ in nothing else from what they are without.
"""

import json
from dataclasses import dataclass

from . import Unavailable, host

# As many for each. One that binds them once has them as descriptors beside those of its sessions.
PASSIVE_PORTS = 1000
# Pure-FTPd lets in half as many clients as it has of them.
PURE_FTPD_PORTS = 20_400
SESSIONS_MAX = 18_500
# A user with the site as his directory, where anonymous may not replace files.
UPLOADER = ("compare", "compare-only")
# Of that password. pure-pw would take a hash whose check takes a second and much memory.
_UPLOADER_HASH = "$1$compare$PkmwUnZ/Zagyn88RIMxBL0"


@dataclass(frozen=True)
class Place:
    """Where a server finds what it needs: its package, the files to serve, the certificate with its
    key; and its ports."""

    scratch: object
    root: object
    site: object
    pem: object
    port: int
    first: int
    last: int

    def config(self, name, text):
        path = self.scratch / name
        path.write_text(text)
        return path


# Each returns the arguments without TLS, and with it.


def ringftpd(place, cpu, privileged):
    user = f'user = "{host.USER}"' if privileged else ""
    text = f"""
[server]
listen = ["127.0.0.1:{place.port}"]
cores = "{cpu}-{cpu}"
{user}
[limits]
sessions = {SESSIONS_MAX}
sessions_per_ip = 0
[data]
passive_ports = "{place.first}-{place.last}"
active_source_port = 0
ports_per_client = {PASSIVE_PORTS}
[anonymous]
enabled = true
root = {json.dumps(str(place.site))}
access = "read-write"
[users]
enabled = false
[log]
level = "warn"
[admin]
enabled = false
"""
    tls = f"""
[tls]
certificates = [{json.dumps(str(place.pem))}]
"""
    return (["serve", "--config", place.config("ringftpd.toml", text)],
            ["serve", "--config", place.config("ringftpd-tls.toml", text + tls)])


def vsftpd(place):
    empty = place.scratch / "empty"
    empty.mkdir(mode=0o755, exist_ok=True)
    text = f"""\
background=NO
listen=YES
listen_address=127.0.0.1
listen_port={place.port}
anonymous_enable=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
anon_umask=022
anon_root={place.site}
ftp_username={host.USER}
nopriv_user=nobody
secure_chroot_dir={empty}
pasv_min_port={place.first}
pasv_max_port={place.last}
max_clients=0
max_per_ip=0
xferlog_enable=NO
"""
    # Its own ciphers are those of 2005; it asks for sessions that are resumed by itself.
    tls = f"""\
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=NO
force_anon_data_ssl=NO
rsa_cert_file={place.pem}
ssl_ciphers=HIGH
"""
    return ([place.config("vsftpd.conf", text)], [place.config("vsftpd-tls.conf", text + tls)])


def proftpd(place):
    text = f"""\
ServerType standalone
ServerName compare
DefaultAddress 127.0.0.1
SocketBindTight on
UseIPv6 off
Port {place.port}
PassivePorts {place.first} {place.last}
User {host.USER}
Group nogroup
UseReverseDNS off
MaxInstances none
RequireValidShell off
WtmpLog off
SystemLog none
TransferLog none
PidFile {place.scratch}/proftpd.pid
ScoreboardFile {place.scratch}/proftpd.scoreboard
<IfModule mod_delay.c>
  DelayEngine off
</IfModule>
<IfModule mod_ctrls.c>
  ControlsEngine off
</IfModule>
<Anonymous {place.site}>
  User {host.USER}
  Group nogroup
  UserAlias anonymous {host.USER}
  Umask 022
  AllowOverwrite on
  <Limit WRITE>
    DenyAll
  </Limit>
  <Limit STOR>
    AllowAll
  </Limit>
</Anonymous>
"""
    # By default data connections have to resume.
    tls = f"""\
ModulePath {place.root}/usr/lib/proftpd
LoadModule mod_tls.c
TLSEngine on
TLSLog none
TLSProtocol TLSv1.2 TLSv1.3
TLSECCertificateFile {place.pem}
TLSECCertificateKeyFile {place.pem}
TLSVerifyClient off
TLSRenegotiate none
"""
    return tuple(["--nodaemon", "--quiet", "--config", place.config(name, text)]
                 for name, text in (("proftpd.conf", text), ("proftpd-tls.conf", tls + text)))


def pure_ftpd(place):
    """Its anonymous users never replace a file: uploads are those of a virtual user."""
    users, database = place.scratch / "pure-ftpd.passwd", place.scratch / "pure-ftpd.pdb"
    name, password = UPLOADER
    program = place.root / "usr/bin/pure-pw"
    if not program.exists():
        raise Unavailable("pure-pw is not in its package")
    host.output_of(
        program, "useradd", name, "-f", users, "-u", host.USER, "-d", place.site,
        say=f"{password}\n{password}\n")
    fields = users.read_text().split(":")
    users.write_text(":".join([fields[0], _UPLOADER_HASH, *fields[2:]]))
    host.output_of(program, "mkdb", database, "-f", users)
    # No DNS, no syslog, no limits on clients and load, and listings to the end.
    common = [
        "-S", f"127.0.0.1,{place.port}", "-p", f"{place.first}:{place.last}", "-H", "-M",
        "-f", "none", "-A", "-c", "20000", "-C", "20000", "-L", "200000:5", "-U", "022:022",
        "-u", "1", "-l", f"puredb:{database}", "-g", place.scratch / "pure-ftpd.pid",
    ]
    return [*common, "-Y", "0"], [*common, "-Y", "1", "-2", place.pem]
