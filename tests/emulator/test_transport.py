# SPDX-License-Identifier: Apache-2.0
import asyncio
import io

import av
import httpx
import pytest

BODY = {"product_name": "Lamp", "product_image_url": "https://example.com/l.png", "segment_count": 1}
KEY = {"X-API-Key": "ugen_sk_local"}


def test_a_whole_job_without_a_socket(ugen_transport):
    with httpx.Client(transport=ugen_transport, base_url=ugen_transport.base_url, headers=KEY) as api:
        job = api.post("/jobs", json=BODY).json()
        ugen_transport.emulator.advance(3600)
        job = api.get(f"/jobs/{job['job_id']}").json()
        video = av.open(io.BytesIO(api.get(job["final_video_url"]).content))
        assert video.duration == 8_000_000


def test_sync_and_async_clients_share_one_emulator(ugen_transport):
    async def ask():
        async with httpx.AsyncClient(transport=ugen_transport, base_url=ugen_transport.base_url, headers=KEY) as api:
            return (await api.get("/jobs")).json()["total"]

    with httpx.Client(transport=ugen_transport, base_url=ugen_transport.base_url, headers=KEY) as api:
        api.post("/jobs", json=BODY)
        assert asyncio.run(ask()) == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [("lost", httpx.ReadError), ("slow", httpx.ReadTimeout), ("truncate", httpx.RemoteProtocolError)],
)
def test_faults_are_the_clients_own_exceptions(ugen_transport, kind, error):
    ugen_transport.emulator.faults.add({"kind": kind, "seconds": 60})
    api = httpx.Client(transport=ugen_transport, base_url=ugen_transport.base_url, headers=KEY)
    with api, pytest.raises(error):
        api.post("/jobs", json=BODY)
    # In each of these the job exists: it is the answer that did not arrive.
    assert len(ugen_transport.emulator.journal.purchases) == 1


def test_a_slow_answer_moves_the_clock_for_a_patient_client(ugen_transport):
    ugen_transport.emulator.faults.add({"kind": "slow", "seconds": 60})
    begun = ugen_transport.emulator.now()
    with httpx.Client(transport=ugen_transport, base_url=ugen_transport.base_url, headers=KEY, timeout=90) as api:
        assert api.get("/models").status_code == 200
    assert ugen_transport.emulator.now() == begun + 60


def test_our_own_client_runs_on_it(ugen_transport):
    from ugen_provider import UGenClient

    http = httpx.Client(transport=ugen_transport)
    with UGenClient(api_key="ugen_sk_local", base_url=ugen_transport.base_url, http_client=http) as client:
        assert client.credits.balance().available_credits == 10_000_000
