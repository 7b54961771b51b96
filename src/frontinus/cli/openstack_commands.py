"""`frontinus openstack …`: the commands and their options; what they do is in openstack/, imported when one runs. Nothing here
imports openstacksdk, which takes its time and need not be installed: `frontinus` has other commands."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from frontinus.cli.options import CONFIG, JSON, STATE_DIR, overrides
from frontinus.cli.output import complain

_REGION = click.option("--region", help="Of the catalogue (default: the one that clouds.yaml names).")
_AS_ADMIN = click.option(
    "--os-cloud", help="Entry of clouds.yaml: an administrator's account (default: openstack.cloud of the settings)."
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only tell what would be changed.")


@click.group()
def openstack() -> None:
    """An OpenStack around: whether it has what Frontinus needs, and Frontinus in its catalogue."""
    if find_spec("openstack") is None:
        complain("openstacksdk is not installed: pip install 'frontinus[openstack]'")
        raise SystemExit(2)


@openstack.command("check")
@STATE_DIR
@CONFIG
@click.option(
    "--os-cloud", help="Entry of clouds.yaml whose account looks at what ours may not see; a tenant's, for --try."
)
@click.option("--try", "tries", is_flag=True, help="Make ports, groups and server groups, and remove them at once.")
@JSON
def openstack_check(
    state_dir: Path | None, config: Path | None, os_cloud: str | None, tries: bool, as_json: bool
) -> None:
    """Say of each service of OpenStack what works for Frontinus, and what is missing and what to do.

    Changes nothing, unless --try is given. Exit status 1 when something is in trouble."""
    from frontinus.cli.openstack import check as command

    raise SystemExit(command.run(config, overrides(state_dir), as_cloud=os_cloud, tries=tries, as_json=as_json))


@openstack.command("register")
@STATE_DIR
@CONFIG
@_AS_ADMIN
@_REGION
@click.option("--url", help="Of the API, as clients reach it, without a version: http://lb.example.org:9876")
@click.option("--internal-url", help="The same for other services (default: --url).")
@click.option("--admin-url", help="The same for administrators (default: --internal-url).")
@click.option("--name", default="frontinus", show_default=True, help="Of the service in the catalogue.")
@click.option("--replace", is_flag=True, help="Switch off what another load-balancer service has in this region.")
@_DRY_RUN
@JSON
def openstack_register(
    state_dir: Path | None,
    config: Path | None,
    os_cloud: str | None,
    region: str | None,
    url: str | None,
    internal_url: str | None,
    admin_url: str | None,
    name: str,
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put the API into Keystone's catalogue, under the type load-balancer, and make the roles load-balancer_*.

    Can be repeated: what is there is left, and what differs is changed. Exit status 1 when it could not be done."""
    if url is None:
        raise click.UsageError("say by --url where clients reach the API")
    from frontinus.cli.openstack import register as command

    internal = internal_url or url
    urls = {"public": url, "internal": internal, "admin": admin_url or internal}
    raise SystemExit(
        command.register(
            config,
            overrides(state_dir),
            as_cloud=os_cloud,
            region=region,
            urls=urls,
            name=name,
            replace=replace,
            dry_run=dry_run,
            as_json=as_json,
        )
    )


@openstack.command("unregister")
@STATE_DIR
@CONFIG
@_AS_ADMIN
@_REGION
@_DRY_RUN
@JSON
def openstack_unregister(
    state_dir: Path | None, config: Path | None, os_cloud: str | None, region: str | None, dry_run: bool, as_json: bool
) -> None:
    """Take Frontinus' endpoints of a region out of the catalogue, and its service with the last of them.

    Roles stay: people may have them. Whatever --replace switched off is named, and stays off."""
    from frontinus.cli.openstack import register as command

    raise SystemExit(
        command.unregister(
            config, overrides(state_dir), as_cloud=os_cloud, region=region, dry_run=dry_run, as_json=as_json
        )
    )
