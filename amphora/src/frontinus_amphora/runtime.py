"""What haproxy is asked and told beside changes: what it learnt of its servers, and to let go of those that still had connections.

By its runtime socket alone. Whatever fails here is tried again by others, or costs a flap. Next: load_balancer.py."""

from collections.abc import Iterable

from frontinus_amphora import files, haproxy_cli, haproxy_text
from frontinus_amphora.haproxy_cli import HaproxySilent
from frontinus_amphora.log import log


def save_states(stats_socket: str, text: str, load_balancer_id: str) -> None:
    """Keep what haproxy learnt of its servers for the worker to come, which runs this text. Losing it costs a flap, no more."""
    path = haproxy_text.server_state_file(text)
    if path is None:
        return
    try:
        states = haproxy_cli.ask(stats_socket, "show servers state")
        settled = haproxy_cli.settle_states(states, haproxy_text.servers(text))
        files.write_atomically(path, settled.encode())
    except (OSError, ValueError, KeyError) as error:
        log("server states not saved", load_balancer_id=load_balancer_id, error=repr(error))


def remove_servers(stats_socket: str, names: Iterable[str], load_balancer_id: str) -> tuple[str, ...]:
    """Delete servers that had connections when they were to go; those that still have some."""
    left = []
    for name in names:
        try:
            answer = haproxy_cli.ask(stats_socket, f"del server {name}", 1.0)
        except HaproxySilent:
            left.append(name)
            continue
        if haproxy_cli.is_not_yet(answer):
            left.append(name)
        elif not haproxy_cli.is_done(answer) and "No such server" not in answer:
            log("server not removed", load_balancer_id=load_balancer_id, server=name, answer=answer.strip()[:200])
    return tuple(left)
