# SPDX-License-Identifier: Apache-2.0
"""Connections that break at any byte, between client and service, and between downloader and storage.

The oracle is outside: the emulator's journal and credits, and the bytes that the storage holds. A run that fails is
repeated alone by `UGEN_TORTURE_SEED=N UGEN_TORTURE_RUNS=1`.
"""

import hashlib
import random

import pytest

from tests.core.local import EmulatorClock
from tests.media.conftest import Answer, Storage, mp4  # noqa: F401  fixture
from tests.torture.fault_proxy import KINDS, FaultProxy, draw_fate
from tests.torture.test_core import FIRST, RUNS
from ugen_provider import CreateJob, Job, RetryPolicy, UGenClient, UGenError, buy
from ugen_provider.core.media import DownloadError, download_outputs
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.ledger import Ledger

SEEDS = range(FIRST, FIRST + max(8, RUNS // 20))
LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.png", segment_count=1)
MOST_ATTEMPTS = 40


@pytest.fixture(scope="module")
def server():
    with EmulatorServer(Settings(speed=0, admin=True)) as opened:
        yield opened


def delivered(server, proxy, ledger):
    """One order through the proxy, attempt after attempt, each in a client of its own."""
    clock = EmulatorClock(server.emulator)
    for attempt in range(MOST_ATTEMPTS):
        if attempt == MOST_ATTEMPTS - 10:
            proxy.rate = 0.0  # a network that never works delivers nothing
        settings = {"base_url": f"http://127.0.0.1:{proxy.port}/api/v1", "clock": clock, "timeout": 5}
        with UGenClient(api_key=LOCAL_KEY, retries=RetryPolicy(attempts=2), **settings) as client:
            try:
                return buy(client, LAMP, name="lamp", ledger=ledger, interval=30)
            except UGenError:
                server.emulator.advance(60)
    raise AssertionError("no video after all attempts")


@pytest.mark.parametrize("seed", SEEDS)
def test_order_over_broken_connections_is_bought_once(server, seed, tmp_path):
    server.emulator.reset()
    ledger = Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True)
    with ledger, FaultProxy(server.port, seed=seed) as proxy:
        bought = delivered(server, proxy, ledger)
        again = delivered(server, proxy, ledger)
    (made,) = server.emulator.journal.find_purchases(kind="create")
    books = server.emulator.accounts.by_name["local"].credits
    assert (bought.job.job_id, again.job.job_id) == (made.job_id, made.job_id)
    assert bought.job.final_video_url
    assert books.reserved == 0


@pytest.fixture
def storage():
    opened = Storage()
    yield opened
    opened.close()


def resumable(body, *, validator):
    """Answers as a store that serves ranges."""

    def script(_, headers):
        about = {"Content-Type": "video/mp4", "ETag": validator, "Accept-Ranges": "bytes"}
        begin = int(headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if begin and headers.get("if-range") == validator:
            place = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            return Answer(206, body[begin:], {**about, "Content-Range": place})
        return Answer(200, body, about)

    return script


def downloaded(job, folder):
    """The manifest of a download, attempt after attempt."""
    for _ in range(MOST_ATTEMPTS):
        try:
            return download_outputs(job, folder, allow_private=True, timeout=5)
        except DownloadError as error:
            failure = error
        assert failure.reason == "network"  # a connection that broke is never the file's own fault
        assert [path.name for path in (folder / "j1").iterdir()] == ["manifest.json"]
    raise AssertionError("no file after all attempts")


@pytest.mark.parametrize("seed", SEEDS)
def test_download_over_broken_connections_is_whole(storage, mp4, seed, tmp_path):  # noqa: F811  fixture
    body = mp4 + (4_000_000).to_bytes(4, "big") + b"free" + bytes(range(256)) * 15_625
    body = body[: len(mp4) + 4_000_000]
    storage.serve("/v.mp4", resumable(body, validator='"v1"'))
    with FaultProxy(storage.port, seed=seed, rate=0.7, largest=len(body)) as proxy:
        link = f"http://127.0.0.1:{proxy.port}/v.mp4"
        job = Job.model_validate({"job_id": "j1", "status": "completed", "final_video_url": link})
        manifest = downloaded(job, tmp_path)
    assert (tmp_path / "j1" / "final.mp4").read_bytes() == body
    assert manifest.files[0].sha256 == hashlib.sha256(body).hexdigest()


def test_fault_proxy_of_each_seed_breaks_connections_in_each_way():
    draw = random.Random(1)
    fates = [draw_fate(draw, rate=1, largest=4096) for _ in range(2000)]
    assert {fate.kind for fate in fates} == set(KINDS)
    assert {fate.upward for fate in fates} == {True, False}
    assert min(fate.at for fate in fates) == 0
    assert sum(fate.at < 64 for fate in fates) > 200
    assert sum(fate.at > 1024 for fate in fates) > 200
