# SPDX-License-Identifier: Apache-2.0
"""What an account's service does where the documentation is silent, told without spending."""

import pytest

from tests.core.local import Local
from ugen_provider import CreateJob
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


def test_a_service_as_assumed_is_healthy():
    diagnosis = diagnose()
    assert diagnosis.healthy, diagnosis.findings
    assert {"key", "balance", "list_shape", "statuses", "id_field", "list_order", "status_filter", "models"} <= {
        finding.name for finding in diagnosis.findings
    }


def test_an_account_that_was_never_used_says_what_it_cannot_tell():
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
def test_what_is_otherwise_is_named_with_what_it_means(readings, name, word):
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


def test_a_service_that_no_longer_offers_the_default_model_says_to_name_one():
    finding = diagnose(models="kling_only")["default_model"]
    assert finding.holds is False
    assert "video_model" in finding.means


def test_a_wrong_key_and_no_network_end_it_with_what_to_do():
    local = Local(Settings(speed=0, admin=True))
    with local.client(api_key="ugen_sk_wrong") as client:
        (finding,) = client.diagnose().findings
        assert (finding.name, finding.holds, finding.means) == ("key", False, "check the API key")
    from ugen_provider import UGenClient

    with UGenClient(api_key="k", base_url="http://127.0.0.1:1/api/v1", retries=0) as client:
        (finding,) = client.diagnose().findings
        assert (finding.name, finding.holds) == ("reachable", False)
