"""The program by which haproxy pings a member (`option external-check`; contract agent_paths has Octavia's).

haproxy says in HAPROXY_SERVER_ADDR whom to ask, and ends the program itself when `timeout check` is over. `ping` is the
system's: it has the right to send ICMP (a file capability, or net.ipv4.ping_group_range) that an agent of an ordinary
user has not. It is a POSIX shell script because it runs for every check of every member. Next: agent.py puts it in place.
"""

import os

from frontinus_amphora import files
from frontinus_amphora.log import log

NAME = "ping-wrapper.sh"

SCRIPT = b"""#!/bin/sh
# Written by the agent at its start. Exits 0 when the member answers one echo request.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec ping -q -n -c 1 -W 60 "$HAPROXY_SERVER_ADDR" >/dev/null 2>&1
"""


SHARED_DIRECTORY = "/var/lib/frontinus-amphora"


def install(base_path: str) -> None:
    """Put the program where configurations look for it. Nothing is written when it is there.

    An agent that is root runs haproxy as an ordinary user, who cannot look into the agent's directory: then it goes
    where every user may read it."""
    directory, mode = base_path, files.PRIVATE_PROGRAM
    if os.geteuid() == 0:
        directory, mode = SHARED_DIRECTORY, files.PUBLIC_PROGRAM
    path = f"{directory}/{NAME}"
    try:
        if directory == SHARED_DIRECTORY and not os.path.isdir(directory):
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, mode)
        if files.read(path) != SCRIPT:
            files.write_atomically(path, SCRIPT, mode=mode)
    except OSError as error:  # whoever is pinged is down then, and everything else works
        log("members cannot be pinged", path=path, error=repr(error))
