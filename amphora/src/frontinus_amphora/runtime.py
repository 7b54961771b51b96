"""What haproxy is asked and told while it runs: the commands of a change, what it learnt of its servers, and to let go of those that
still had connections.

By its runtime socket alone. A refusal is told, and load_balancer.py decides; whatever else fails here is tried again by others, or
costs a flap. Next: load_balancer.py."""

from collections.abc import Callable, Iterable

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
        forget_states(text, load_balancer_id)


def forget_states(text: str, load_balancer_id: str) -> None:
    """What was saved was for one reload. Whoever reads it later takes members for down that came up since, and the reverse."""
    path = haproxy_text.server_state_file(text)
    if path is not None:
        try:
            files.remove(path)
        except OSError as error:
            log("old server states stay", load_balancer_id=load_balancer_id, error=error.strerror)


def send(stats_socket: str, commands: Iterable[str], not_yet: Callable[[str], None]) -> str | None:
    """Send the commands one by one; the first refusal as text, or None. `not_yet` is told of a server that is to be deleted and
    has connections still."""
    refusal: str | None = None
    version: str | None = None  # of the map or acl that was prepared last
    for command in commands:
        first = command.partition("\n")[0]
        name = haproxy_cli.deleted_server(command)
        if haproxy_cli.is_of_prepared(command):
            if version is None:
                refusal = refusal or f"{first.split('<<')[0].strip()}: nothing was prepared"
                continue
            command = haproxy_cli.of_version(command, version)
        try:
            answer = haproxy_cli.ask(stats_socket, command)
        except HaproxySilent as error:
            return refusal or f"{first}: {error}"
        if first.startswith("prepare "):
            version = haproxy_cli.prepared(command, answer)
        if name is not None and haproxy_cli.is_not_yet(answer):
            not_yet(name)
        elif not haproxy_cli.is_done(answer):
            refusal = refusal or f"{first.split('<<')[0].strip()}: {answer.strip()[:500]}"
    return refusal


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
