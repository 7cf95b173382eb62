# SPDX-License-Identifier: Apache-2.0
"""A link that expired in the way that the account's service profile names is renewed, by every entry point."""

import asyncio
import json

import pytest

from ugen_provider import AsyncUGenClient, CreateJob, UGenClient
from ugen_provider.core.batch import Budget, FeedRun, FeedRunner
from ugen_provider.core.batch.spec import Outputs
from ugen_provider.emulator.settings import LOCAL_KEY
from ugen_provider.ledger import Ledger

LAMP = CreateJob(product_name="Lamp", product_image_url="https://s.example/l.jpg", segment_count=1)
PROFILE = {"expired_statuses": [451]}


def operator(server, folder, job_id):
    from ugen_provider.operators.media import store_outputs

    with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url, service_profile=PROFILE) as client:
        store_outputs(client, client.jobs.get(job_id), folder, keyframes=())


def command(server, folder, job_id):
    from click.testing import CliRunner

    from ugen_provider.cli import main

    home = folder.parent / "ugen"
    home.mkdir()
    (home / "config.toml").write_text(f"[profiles.own]\nservice_profile = '{json.dumps(PROFILE)}'\n")
    env = {"UGEN_API_KEY": LOCAL_KEY, "UGEN_BASE_URL": server.base_url, "XDG_CONFIG_HOME": str(home.parent)}
    arguments = ["jobs", "download", job_id, "--to", str(folder), "--profile", "own", "--allow-private"]
    done = CliRunner().invoke(main, arguments, env=env)
    assert done.exit_code == 0, done.output


def feed_run(server, folder, job_id):
    feed = [{"id": "1", "title": "Lamp", "image_link": "https://s.example/l.jpg"}]
    outputs = Outputs(str(folder), allow_private=True)
    spec = FeedRun(feed, catalogue="shop", run_id="r", budget=Budget(credits=500), job_defaults={"segment_count": 1},
                   outputs=outputs, interval=0.01)  # fmt: skip

    async def run(ledger):
        given = {"api_key": LOCAL_KEY, "base_url": server.base_url, "service_profile": PROFILE}
        async with AsyncUGenClient(**given) as client:
            return await FeedRunner(client, ledger, spec).run()

    with Ledger.init(str(folder.parent / "ledger.db"), allow_ephemeral=True) as ledger:
        report = asyncio.run(run(ledger))
    assert (report.completed, report.not_stored) == (1, 0)


def dagster_run(server, folder, job_id):
    import dagster as dg

    from dagster_ugen import UGenResource, build_ugen_assets

    path = str(folder.parent / "ledger.db")
    Ledger.init(path, allow_ephemeral=True).close()
    account = UGenResource(
        api_key=LOCAL_KEY, base_url=server.base_url, poll_interval=0.01, service_profile=PROFILE, ledger=path
    )
    with dg.instance_for_test() as instance:
        assets = build_ugen_assets(requests=lambda _: LAMP, destination=str(folder))
        assert dg.materialize(assets, resources={"ugen": account}, instance=instance).success


@pytest.mark.parametrize("download", [operator, command, feed_run, dagster_run])
def test_link_expired_as_the_profile_says_is_renewed(
    download, ugen_emulator, ugen_client, ugen_clock, ugen_faults, tmp_path
):
    job = ugen_client.jobs.create(LAMP)
    ugen_clock.advance(100_000)
    ugen_clock.tick(600)  # the feed's own job ends within a few polls
    ugen_faults.add("status", status=451, path="/media/*final*", times=1)
    download(ugen_emulator, tmp_path / "videos", job.job_id)
    assert list((tmp_path / "videos").rglob("final.mp4"))
