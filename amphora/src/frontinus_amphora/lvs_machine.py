"""The machine lets LVS work: settings of its kernel, and rules of nftables.

Members see the amphora as the source of a session (masquerade), so that their answers come back by it. The kernel does
that by following each session from its first packet to its last (nf_conntrack), in a table that has room for few where there
is little memory: 2048 in a machine of 256 MiB. When it is full every packet that begins something is lost, of whatever
protocol. So it is made as large as the memory bears; and TCP, of which haproxy ends every connection itself, is not in it.
Safe to repeat. Next: lvs.py.
"""

import re

from frontinus_amphora import facts, kernel, processes
from frontinus_amphora.errors import ServiceFailed

SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/vs/conntrack": "1",  # or members would answer past the amphora
    "net/ipv4/vs/expire_nodest_conn": "1",  # sessions of a member that is down go to others at once
    "net/ipv4/vs/expire_quiescent_template": "1",
    # The other one of a pair is told of a session with its first datagram, and again while it goes on: not by the count of
    # its datagrams, which would be from the third on.
    "net/ipv4/vs/sync_threshold": "0 0",
    "net/ipv4/vs/sync_refresh_period": "10",
}

RULES = """
table inet frontinus_lvs {}
delete table inet frontinus_lvs
table inet frontinus_lvs {
    chain coming {
        type filter hook prerouting priority raw;
        meta l4proto tcp notrack
    }
    chain sent {
        type filter hook output priority raw;
        meta l4proto tcp notrack
    }
    chain leaving {
        type nat hook postrouting priority srcnat;
        meta l4proto { udp, sctp } masquerade to :32768-60999
    }
    chain routed {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
}
"""
"""Nothing is routed through an amphora but answers. Members see ports to which only answers are expected, whatever port
the client has: the networks of some drivers let nothing else in."""

MEMORY_OF_SESSIONS = 8
"""Of how many parts of the machine's memory sessions get one."""

SESSION_BYTES = 768
"""Of memory for each, at the least: nf_conntrack and ip_vs_conn (slabs of 320 and 384 bytes on amd64), and their places."""

FEWEST_SESSIONS = 8_192

FOLLOWED_LONGER_S = 10
"""The kernel follows a session for longer than ip_vs remembers it, which has it forgotten with its own. Otherwise one that
has been silent for half a minute would come to its member from another port (nf_conntrack_udp_timeout; 2 minutes when both
sides have spoken)."""

_BUCKETS_IN_PAGE = 512
_IDLE = re.compile(r"^ +lvs_timeouts udp (\d+)$", re.MULTILINE)


def prepare(text: str) -> None:
    """Have the machine ready for what keepalived is told by this text. Raises ServiceFailed."""
    try:
        for name, value in SETTINGS.items():
            kernel.put(name, value)
    except OSError as error:
        raise ServiceFailed("this machine cannot be prepared for LVS", str(error)) from error
    # Patient: the first time loads modules of the kernel, on a processor that may be emulated.
    code, output = processes.run(("nft", RULES), 30.0)
    if code != 0:
        raise ServiceFailed("this machine cannot be prepared for LVS", output or f"nft ended with {code}")
    # After the rules, by which the kernel gets its table. One that shares its kernel may not say how large that is.
    kernel.prefer(table_settings(facts.memory_kib()[0], text))


def table_settings(memory_kib: int, text: str) -> dict[str, str]:
    """How many sessions the kernel follows, and for how long. Pure."""
    most = max(FEWEST_SESSIONS, memory_kib * 1024 // MEMORY_OF_SESSIONS // SESSION_BYTES)
    # Whole pages of them, as the kernel would have it.
    buckets = -(-(most // 2) // _BUCKETS_IN_PAGE) * _BUCKETS_IN_PAGE
    settings = {"net/netfilter/nf_conntrack_buckets": str(buckets), "net/netfilter/nf_conntrack_max": str(most)}
    idle = _IDLE.search(text)
    if idle is not None:
        followed = str(int(idle[1]) + FOLLOWED_LONGER_S)
        # Sessions in which only one side has spoken, and others.
        settings["net/netfilter/nf_conntrack_udp_timeout"] = followed
        settings["net/netfilter/nf_conntrack_udp_timeout_stream"] = followed
    return settings
