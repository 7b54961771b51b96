"""A provider driver for OpenStack load balancing, in the style of octavia-lib: see README.md."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from octavia_lib.api.drivers import data_models, driver_lib, exceptions, provider_base

_FLAVOR = {"copies": "How many copies of each entry are kept.", "paper": "On which paper."}
_ZONE = {"shelf": "On which shelf the register lies."}


def _unsupported(words: str) -> exceptions.UnsupportedOptionError:
    return exceptions.UnsupportedOptionError(user_fault_string=words, operator_fault_string=words)


class RegistrarDriver(provider_base.ProviderDriver):
    """Takes every call down, and reports it done from a thread of its own, as drivers of real appliances do."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(os.environ["REGISTRAR_DIR"])
        self._library = driver_lib.DriverLibrary()

    # Load balancers

    def loadbalancer_create(self, loadbalancer: Any) -> None:
        self._take("loadbalancer_create", loadbalancer, [("loadbalancers", loadbalancer.loadbalancer_id)])

    def loadbalancer_update(self, old_loadbalancer: Any, new_loadbalancer: Any) -> None:
        self._take("loadbalancer_update", new_loadbalancer, [("loadbalancers", old_loadbalancer.loadbalancer_id)])

    def loadbalancer_delete(self, loadbalancer: Any, cascade: bool = False) -> None:
        name = "loadbalancer_delete cascade" if cascade else "loadbalancer_delete"
        self._take(name, loadbalancer, [("loadbalancers", loadbalancer.loadbalancer_id)], status="DELETED")

    def loadbalancer_failover(self, loadbalancer_id: str) -> None:
        self._note("loadbalancer_failover", loadbalancer_id)
        failed = (self._directory / "break").exists()
        self._report([("loadbalancers", loadbalancer_id)], "ERROR" if failed else "ACTIVE", None)

    # Flavors and availability zones

    def get_supported_flavor_metadata(self) -> dict[str, str]:
        return dict(_FLAVOR)

    def validate_flavor(self, flavor_metadata: dict[str, Any]) -> None:
        self._refuse_unknown(flavor_metadata, _FLAVOR)
        if not isinstance(flavor_metadata.get("copies", 1), int):
            raise _unsupported("copies must be a number")

    def get_supported_availability_zone_metadata(self) -> dict[str, str]:
        return dict(_ZONE)

    def validate_availability_zone(self, availability_zone_metadata: dict[str, Any]) -> None:
        self._refuse_unknown(availability_zone_metadata, _ZONE)

    def _refuse_unknown(self, asked: dict[str, Any], known: dict[str, str]) -> None:
        if (self._directory / "fail").exists():
            raise exceptions.DriverError(user_fault_string="the appliance is on fire", operator_fault_string="")
        for key in asked:
            if key not in known:
                raise _unsupported(f"the registrar has no {key}")

    # Listeners

    def listener_create(self, listener: Any) -> None:
        self._refuse_datagrams(listener.protocol)
        self._take("listener_create", listener, self._listener(listener), count=listener.listener_id)

    def listener_update(self, old_listener: Any, new_listener: Any) -> None:
        self._take("listener_update", new_listener, self._listener(old_listener))

    def listener_delete(self, listener: Any) -> None:
        self._take("listener_delete", listener, [("loadbalancers", listener.loadbalancer_id)])

    # Pools and what is in them

    def pool_create(self, pool: Any) -> None:
        self._refuse_datagrams(pool.protocol)
        self._take("pool_create", pool, self._pool(pool))

    def pool_update(self, old_pool: Any, new_pool: Any) -> None:
        self._take("pool_update", new_pool, self._pool(old_pool))

    def pool_delete(self, pool: Any) -> None:
        self._take("pool_delete", pool, [("loadbalancers", pool.loadbalancer_id)])

    def member_create(self, member: Any) -> None:
        self._take("member_create", member, self._in_pool("members", member.member_id, member.pool_id))

    def member_update(self, old_member: Any, new_member: Any) -> None:
        self._take("member_update", new_member, self._in_pool("members", old_member.member_id, old_member.pool_id))

    def member_delete(self, member: Any) -> None:
        self._take("member_delete", member, self._in_pool(None, "", member.pool_id))

    def member_batch_update(self, pool_id: str, members: list[Any]) -> None:
        told = [("members", x.member_id) for x in members]
        self._note("member_batch_update", [x.to_dict() for x in members])
        self._report([*told, *self._in_pool(None, "", pool_id)], "ACTIVE", None)

    def health_monitor_create(self, healthmonitor: Any) -> None:
        told = self._in_pool("healthmonitors", healthmonitor.healthmonitor_id, healthmonitor.pool_id)
        self._take("health_monitor_create", healthmonitor, told)

    def health_monitor_delete(self, healthmonitor: Any) -> None:
        self._take("health_monitor_delete", healthmonitor, self._in_pool(None, "", healthmonitor.pool_id))

    # What it does not do: L7 policies and rules (the base class raises NotImplementedError), and datagrams.

    def _refuse_datagrams(self, protocol: str) -> None:
        if protocol in ("UDP", "SCTP"):
            raise _unsupported(f"the registrar does no {protocol}")

    @staticmethod
    def _listener(listener: Any) -> list[tuple[str, str]]:
        return [("listeners", listener.listener_id), ("loadbalancers", listener.loadbalancer_id)]

    @staticmethod
    def _pool(pool: Any) -> list[tuple[str, str]]:
        return [("pools", pool.pool_id), ("loadbalancers", pool.loadbalancer_id)]

    def _in_pool(self, collection: str | None, object_id: str, pool_id: str) -> list[tuple[str, str]]:
        """The load balancer above a pool must be looked up, as many drivers do."""
        pool = self._library.get_pool(pool_id)
        if pool is None:
            raise exceptions.DriverError(user_fault_string=f"no pool {pool_id}", operator_fault_string="")
        own = [] if collection is None else [(collection, object_id)]
        return [*own, ("pools", pool_id), ("loadbalancers", pool.loadbalancer_id)]

    def _take(
        self,
        name: str,
        told: data_models.BaseDataModel,
        about: list[tuple[str, str]],
        *,
        status: str = "ACTIVE",
        count: str | None = None,
    ) -> None:
        self._note(name, told.to_dict(recurse=True))
        self._report(about, status, count)

    def _note(self, name: str, told: object) -> None:
        if (self._directory / "fail").exists():
            raise exceptions.DriverError(user_fault_string="the appliance is on fire", operator_fault_string="")
        with (self._directory / "calls.jsonl").open("a") as file:
            file.write(json.dumps([name, _without_keys(told)]) + "\n")

    def _report(self, about: list[tuple[str, str]], status: str, count: str | None) -> None:
        if (self._directory / "silent").exists():
            return
        operating = "OFFLINE" if status == "DELETED" else "ONLINE"
        told: dict[str, list[dict[str, str]]] = {}
        for collection, object_id in about:
            entry = {"id": object_id, "provisioning_status": status, "operating_status": operating}
            told.setdefault(collection, []).append(entry)
        threading.Thread(target=self._send, args=(told, count), daemon=True).start()

    def _send(self, told: dict[str, list[dict[str, str]]], listener_id: str | None) -> None:
        self._library.update_loadbalancer_status(told)
        if listener_id is not None:
            counted = dict.fromkeys(("active_connections", "bytes_in", "bytes_out", "request_errors"), 7)
            self._library.update_listener_statistics(
                {"listeners": [{"id": listener_id, "total_connections": 1_234, **counted}]}
            )


def _without_keys(told: object) -> object:
    """What may be written down: of a certificate all but its private key."""
    if isinstance(told, dict):
        return {key: _without_keys(value) for key, value in told.items() if key != "private_key"}
    return [_without_keys(x) for x in told] if isinstance(told, list) else told
