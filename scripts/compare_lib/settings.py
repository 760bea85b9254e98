"""How the servers are set up: as alike as their settings allow.

Anonymous may read and write, all but one have the same number of passive ports, and nobody writes
logs, asks DNS, limits clients or rates.
"""

import json

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


def ringftpd(scratch, site, cpu, privileged, port, first, last):
    config = scratch / "ringftpd.toml"
    user = f'user = "{host.USER}"' if privileged else ""
    config.write_text(f"""
[server]
listen = ["127.0.0.1:{port}"]
cores = "{cpu}-{cpu}"
{user}
[limits]
sessions = {SESSIONS_MAX}
sessions_per_ip = 0
[data]
passive_ports = "{first}-{last}"
active_source_port = 0
ports_per_client = {PASSIVE_PORTS}
[anonymous]
enabled = true
root = {json.dumps(str(site))}
access = "read-write"
[users]
enabled = false
[log]
level = "warn"
[admin]
enabled = false
""")
    return ["serve", "--config", config]


def vsftpd(root, scratch, site, port, first, last):
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
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
anon_umask=022
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


def proftpd(root, scratch, site, port, first, last):
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
  Umask 022
  AllowOverwrite on
  <Limit WRITE>
    DenyAll
  </Limit>
  <Limit STOR>
    AllowAll
  </Limit>
</Anonymous>
""")
    return ["--nodaemon", "--quiet", "--config", config]


def pure_ftpd(root, scratch, site, port, first, last):
    """Its anonymous users never replace a file: uploads are those of a virtual user."""
    users, database = scratch / "pure-ftpd.passwd", scratch / "pure-ftpd.pdb"
    name, password = UPLOADER
    program = root / "usr/bin/pure-pw"
    if not program.exists():
        raise Unavailable("pure-pw is not in its package")
    host.output_of(
        program, "useradd", name, "-f", users, "-u", host.USER, "-d", site,
        say=f"{password}\n{password}\n")
    fields = users.read_text().split(":")
    users.write_text(":".join([fields[0], _UPLOADER_HASH, *fields[2:]]))
    host.output_of(program, "mkdb", database, "-f", users)
    # No DNS, no syslog, no TLS, no limits on clients and load, and listings to the end.
    return [
        "-S", f"127.0.0.1,{port}", "-p", f"{first}:{last}", "-H", "-M", "-f", "none", "-A",
        "-Y", "0", "-c", "20000", "-C", "20000", "-L", "200000:5", "-U", "022:022", "-u", "1",
        "-l", f"puredb:{database}", "-g", scratch / "pure-ftpd.pid",
    ]
