# SPDX-License-Identifier: Apache-2.0
"""`client.diagnose`: findings about a service, without spending credits."""

import httpx
import pytest

from tests.core.local import Local
from ugen_provider import CreateJob, UGenClient
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.readings import Readings

LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)


def diagnose(used=True, **readings):
    local = Local(Settings(speed=0, admin=True, readings=Readings().with_values(readings)))
    with local.client() as client:
        model = readings.get("models") == "kling_only"
        job = CreateJob(**LAMP.body(), **({"video_model": "kling3_std"} if model else {}))
        if used:
            for _ in range(3):
                client.jobs.create(job)
                local.world.advance(1000)
        created = local.created
        diagnosis = client.diagnose()
        assert local.created == created
        return diagnosis


def test_diagnose_of_the_assumed_service_is_healthy():
    diagnosis = diagnose()
    assert diagnosis.healthy, diagnosis.findings
    assert {"key", "balance", "list_shape", "statuses", "id_field", "list_order", "status_filter", "models"} <= {
        finding.name for finding in diagnosis.findings
    }


def test_diagnose_of_an_unused_account_leaves_jobs_open():
    diagnosis = diagnose(used=False)
    assert diagnosis["jobs"].holds is None
    assert diagnosis.healthy


@pytest.mark.parametrize(
    ("readings", "name", "word"),
    [
        ({"list_shape": "array"}, "list_shape", "bare array"),
        ({"list_order": "oldest"}, "list_order", "another order"),
        ({"status_filter": "ignored"}, "status_filter", "others"),
        ({"status_words": "other", "extra_status": "awaiting_review"}, "statuses", ""),
    ],
    ids=str,
)
def test_diagnose_names_a_failed_assumption_and_its_effect(readings, name, word):
    local = Local(Settings(speed=0, admin=True, readings=Readings().with_values(readings)))
    with local.client() as client:
        client.jobs.create(LAMP)
        local.world.advance(1000)
        client.jobs.create(LAMP)
        finding = client.diagnose()[name]
        if name != "statuses":
            assert finding.holds is False
            assert finding.means
        assert word in finding.seen


def test_diagnose_without_the_default_model_asks_for_one():
    finding = diagnose(models="kling_only")["default_model"]
    assert finding.holds is False
    assert "video_model" in finding.means


def test_diagnose_ends_at_a_refused_key_or_no_network():
    local = Local(Settings(speed=0, admin=True))
    with local.client(api_key="ugen_sk_wrong") as client:
        (finding,) = client.diagnose().findings
        assert (finding.name, finding.holds, finding.means) == ("key", False, "check the API key")
    with UGenClient(api_key="k", base_url="http://127.0.0.1:1/api/v1", retries=0) as client:
        (finding,) = client.diagnose().findings
        assert (finding.name, finding.holds) == ("reachable", False)


@pytest.mark.parametrize(
    ("answer", "name", "holds"),
    [
        (httpx.Response(200, html="<p>proxy</p>"), "reachable", False),
        (httpx.Response(403, json={"error": {"code": "NO", "message": "no"}}), "key", False),
        (httpx.Response(500, text="gateway"), "reachable", False),
        (httpx.Response(200, json={}, headers={"date": "no date"}), "balance_readable", False),
        (httpx.Response(200, json=[]), "balance_readable", False),
    ],
    ids=["page", "refused", "broken", "no balance", "another form"],
)
def test_diagnose_reads_any_answer_of_the_service(answer, name, holds):
    def respond(request):
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    with httpx.Client(transport=httpx.MockTransport(respond)) as http:
        diagnosis = UGenClient(api_key="ugen_sk_local", retries=0, http_client=http).diagnose()
    assert diagnosis[name].holds is holds
    assert not diagnosis.healthy
