"""Lists of a hundred thousand load balancers: a page reads about as many rows as it shows, on every engine."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from frontinus.model.enums import ProvisioningStatus
from frontinus.model.ids import LoadBalancerId, ProjectId, new_id
from frontinus.model.tree import LoadBalancerTree
from frontinus.store import listing, rows, trees
from frontinus.store.engine import Store, Transaction
from frontinus.store.engines.sqlite import SqliteDatabase
from frontinus.store.listing import Query

from tests.integration.store.world import NOW, Executed, a_tree, statements

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

COUNT = 100_000
PAGE = 100
LARGE, SMALL = ProjectId("large"), ProjectId("small")
SMALL_HAS = 500
MOST_ROWS = 3 * PAGE + SMALL_HAS
"""Of the page, of the marker, and where an engine likes it better, of all that a small project has."""

STEPS_OF_A_ROW = 120
"""SQLite tells not rows but steps of its virtual machine; a scan of everything is two million of them."""


def load_balancer(number: int) -> LoadBalancerTree:
    small = number % (COUNT // SMALL_HAS) == 0
    base = a_tree(listeners=0, pools=0, members=0, at=NOW + timedelta(seconds=number))
    return LoadBalancerTree(
        load_balancer=replace(
            base.load_balancer,
            id=LoadBalancerId(new_id()),
            project_id=SMALL if small else LARGE,
            name=f"web-{number * 7919 % COUNT:06}",
            vip=replace(base.load_balancer.vip, address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"),
            tags=("rare",) if number % 2500 == 7 else (),
            provisioning_status=ProvisioningStatus.ERROR if number % 2500 == 8 else ProvisioningStatus.ACTIVE,
        )
    )


@pytest.fixture
async def filled(store: Store, engine: str) -> Store:
    for start in range(0, COUNT, 2000):
        part = [load_balancer(number) for number in range(start, start + 2000)]

        def work(tx: Transaction, part: list[LoadBalancerTree] = part) -> None:
            work_columns = tuple(trees._LOAD_BALANCER_WORK.values())
            made = [(*rows.LOAD_BALANCER.encode(x.load_balancer), *work_columns) for x in part]
            tx.insert(trees._INSERT_LOAD_BALANCER, trees._LOAD_BALANCER_COLUMNS, made)
            for tree in part:
                trees._write_tags(tx, tree.load_balancer, afresh=True)

        await store.transact(work)
    for table in ("load_balancer", "load_balancer_tag"):
        analyze = f"ANALYZE TABLE {table}" if engine == "mariadb" else f"ANALYZE {table}"
        await store.transact(lambda tx, text=analyze: tx._session.query(text, ()))  # type: ignore[misc]
    return store


def _rows_of_plan(node: Any) -> float:
    """Rows that scans touched, kept or not, in PostgreSQL's plan or MariaDB's analysis."""
    if isinstance(node, list):
        return sum(_rows_of_plan(x) for x in node)
    if not isinstance(node, dict):
        return 0
    found = sum(_rows_of_plan(x) for x in node.values())
    if "Scan" in node.get("Node Type", ""):
        found += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    if "access_type" in node:
        found += (node.get("r_rows") or 0) * (node.get("r_loops") or 0)
    return found


async def examined(store: Store, engine: str, statement: Executed) -> float:
    if isinstance(store._database, SqliteDatabase):
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 100

        driver = store._database.connection().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(step, 100)
        await store.read(lambda tx: tx._session.query(statement, statement.values))
        driver.set_progress_handler(None, 0)
        return steps / STEPS_OF_A_ROW
    how = {"postgresql": "EXPLAIN (ANALYZE, FORMAT JSON) ", "mariadb": "ANALYZE FORMAT=JSON "}[engine]
    found = await store.read(lambda tx: tx._session.query(how + statement, statement.values))
    return _rows_of_plan(json.loads(found[0][0]))


async def test_a_page_reads_what_it_shows(filled: Store, engine: str) -> None:
    everything = await filled.read(lambda tx: listing.list_load_balancers(tx, Query(limit=1)))
    in_the_middle = await filled.read(
        lambda tx: listing.list_load_balancers(tx, Query(filters=(("name", f"web-{COUNT // 2 + 1:06}"),)))
    )
    marker = in_the_middle[0].value.id
    one = everything[0].value
    by_name, by_name_down = (("name", False),), (("name", True),)
    cases = {
        "all": Query(),
        "all after a marker": Query(marker=marker),
        "all before a marker": Query(marker=marker, reverse=True),
        "large project": Query(project_id=LARGE),
        "large project after a marker": Query(project_id=LARGE, marker=marker),
        "small project": Query(project_id=SMALL),
        "newest first": Query(sort=(("created_at", True),)),
        "by name": Query(sort=by_name),
        "by name after a marker": Query(sort=by_name, marker=marker),
        "by name downwards after a marker": Query(sort=by_name_down, marker=marker),
        "by name in a large project": Query(sort=by_name, project_id=LARGE),
        "by name in a large project after a marker": Query(sort=by_name, project_id=LARGE, marker=marker),
        "by name in a small project": Query(sort=by_name, project_id=SMALL),
        "by VIP": Query(sort=(("vip_address", False),), marker=marker),
        # Not after a marker: all who have one status are read from the first on, in the order of the index.
        "by status": Query(sort=(("provisioning_status", False),)),
        "by id": Query(sort=(("id", True),), marker=marker),
        "of a name": Query(filters=(("name", one.name),)),
        "of a name in a project": Query(filters=(("name", one.name),), project_id=one.project_id),
        "of an id": Query(filters=(("id", one.id),)),
        "of a VIP": Query(filters=(("vip_address", one.vip.address),)),
        "in ERROR": Query(filters=(("provisioning_status", ProvisioningStatus.ERROR),)),
        "in ERROR in a project": Query(filters=(("provisioning_status", ProvisioningStatus.ERROR),), project_id=LARGE),
        "with a tag": Query(tags=("rare",)),
        "with a tag in a project": Query(tags=("rare",), project_id=LARGE),
        "without a tag": Query(not_tags=("rare",)),
    }
    cost: dict[str, float] = {}
    for name, query in cases.items():
        with statements(filled) as seen:
            wanted = replace(query, limit=PAGE)
            found = await filled.read(lambda tx, wanted=wanted: listing.list_load_balancers(tx, wanted))  # type: ignore[misc]
        assert found, name
        page = next(x for x in seen if "LIMIT" in x)
        cost[name] = await examined(filled, engine, page)
    assert {name: count for name, count in cost.items() if count > MOST_ROWS} == {}
