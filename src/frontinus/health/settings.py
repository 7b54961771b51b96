"""How health listens and judges: every limit has a name, a unit and a reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class HealthSettings:
    """Built once in main.py and passed down."""

    bind_host: str = "127.0.0.1"
    """Where heartbeats are received. They are authenticated, so another address than loopback is allowed. With a network
    driver that manages amphorae over a network of its own, loopback (where none could reach it) means this machine's
    address there."""

    bind_early: bool = False
    """Bind an address also before the machine has it. On by itself where the network driver gives the address."""

    bind_port: int = 5555
    """UDP port of the receiver (Octavia's health_manager.bind_port)."""

    receive_buffer: int = 4 * 1024 * 1024
    """Bytes asked of the kernel for datagrams that wait; a fleet's burst must fit while the loop is busy. For others than
    root the kernel gives net.core.rmem_max (200 kB by default, a tenth of a second of 10,000 amphorae) at most."""

    batch: int = 256
    """Datagrams taken from the socket before the event loop gets its turn again."""

    silence_deadline: timedelta = timedelta(seconds=3)
    """An amphora silent for longer is suspected. Three heartbeats at the default interval of one second, so that two
    may be lost. The whole way from death to traffic must stay under 5 s."""

    paces_missed: float = 2.5
    """An amphora that beats more slowly than every `silence_deadline` / 2.5, as Octavia's do every ten seconds, has so many
    of its own paces before it is suspected; its pace is what it has shown lately."""

    longest_deadline: timedelta = timedelta(seconds=60)
    """No amphora has more than this, whatever its pace."""

    share_interval: timedelta = timedelta(milliseconds=500)
    """How often receivers tell each other through the store what they heard, when there are several. A suspicion comes
    twice this later then."""

    suspect_again_after: timedelta = timedelta(seconds=10)
    """An amphora that was found alive and stays silent all the same (its datagrams are lost on the way) is suspected anew
    after this. Longer than it takes for the list of amphorae to show the first suspicion."""

    check_interval: timedelta = timedelta(milliseconds=250)
    """How often silence is looked for."""

    flush_interval: timedelta = timedelta(milliseconds=200)
    """How often changed operating statuses are written. Short, since a tenant watches them."""

    statistics_interval: timedelta = timedelta(seconds=1)
    """How often changed counters are written: 2,048 at most each time, those first that wait longest. So those of 20,000
    listeners that all have traffic are ten seconds old at most."""

    seen_interval: timedelta = timedelta(seconds=5)
    """How often last-seen times are written; between, they are in memory."""

    refresh_interval: timedelta = timedelta(seconds=60)
    """How often statuses are weighed anew although the amphora says the same as before and nothing was changed: what
    should never be needed, so that of a large fleet no more than 32 a second are. When a tree has changed, the amphorae of its load balancer are weighed within
    `fleet_interval`."""

    fleet_interval: timedelta = timedelta(seconds=1)
    """How often the list of amphorae to watch is read."""

    brake_minimum: int = 5
    """So many silent amphorae at once are always believed; above, brake_share decides."""

    brake_share: float = 0.25
    """When a larger share of the fleet is silent at once it is we who are deaf: nobody is suspected until it ends."""
