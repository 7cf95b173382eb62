# SPDX-License-Identifier: Apache-2.0
import httpx
import pytest

BODY = {
    "product_name": "Lamp",
    "product_image_url": "https://example.com/lamp.jpg",
    "segment_count": 2,
}


class Api(httpx.Client):
    """Plain HTTP, so that what is tested is the emulator and not our client."""

    def create(self, **changes):
        answer = self.post("/jobs", json={**BODY, **changes})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def job(self, job_id):
        return self.get(f"/jobs/{job_id}").json()

    def available(self):
        return self.get("/credits/balance").json()["available_credits"]


@pytest.fixture
def api(ugen_emulator):
    with Api(base_url=ugen_emulator.base_url, headers={"X-API-Key": "ugen_sk_local"}) as client:
        yield client
