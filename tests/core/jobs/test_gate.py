# SPDX-License-Identifier: Apache-2.0
"""Money goes into the very picture that was approved, and into it once."""

import hashlib

import httpx
import pytest

from ugen_provider import CreateJob, JobCancelledError, JobFailedError, PurchaseError
from ugen_provider.core.jobs.gate import Approval, close_gate, look_at, pass_gate

LAMP = CreateJob(
    product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=2, stop_at_stage="init"
)


class Pictures:
    """The pictures as their addresses would serve them; `remake` makes one again."""

    def __init__(self):
        self.version = 1

    def digest(self, url):
        return hashlib.sha256(f"{url} {self.version}".encode()).hexdigest()


@pytest.fixture
def pictures():
    return Pictures()


@pytest.fixture
def waiting(client, local):
    """A job that stands at its gate."""
    job = client.jobs.create(LAMP)
    local.world.advance(600)
    return client.jobs.get(job.job_id)


def approve(client, job, pictures):
    look = client.run(look_at(client.caller, job.job_id, digest_of=pictures.digest))
    return Approval.of(look, by="anna", at=1.0)


def go_on(client, approval, pictures, **more):
    return client.run(pass_gate(client.caller, approval, digest_of=pictures.digest, **more))


def test_an_approved_look_goes_on_to_its_video(client, local, pictures, waiting):
    approval = Approval.from_dict(approve(client, waiting, pictures).to_dict())
    assert go_on(client, approval, pictures).how == "resumed"
    assert client.jobs.wait(waiting.job_id).final_video_url
    assert local.created == 1


def test_approving_twice_buys_once(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    go_on(client, approval, pictures)
    assert go_on(client, approval, pictures).how == "already"
    client.jobs.wait(waiting.job_id)
    assert go_on(client, approval, pictures).how == "already"
    assert local.requests("POST", f"/api/v1/jobs/{waiting.job_id}/resume") == 1


def test_a_picture_that_was_made_again_is_not_paid_for(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    pictures.version = 2
    with pytest.raises(PurchaseError, match="made again") as caught:
        go_on(client, approval, pictures)
    assert caught.value.reason == "approval_outdated"
    assert client.jobs.get(waiting.job_id).status == "paused"


def test_an_approval_of_another_job_opens_nothing(client, local, pictures, waiting):
    other = client.jobs.create(LAMP)
    local.world.advance(600)
    approval = approve(client, other, pictures)
    stolen = Approval(waiting.job_id, approval.keyframe_id, approval.digest)
    with pytest.raises(PurchaseError):
        go_on(client, stolen, pictures)


@pytest.mark.parametrize("spending", ["attach_only", "off"])
def test_without_leave_to_spend_nothing_goes_on(client, local, pictures, waiting, spending):
    with pytest.raises(PurchaseError, match="spending"):
        go_on(client, approve(client, waiting, pictures), pictures, spending=spending)
    assert client.jobs.get(waiting.job_id).status == "paused"


@pytest.mark.parametrize("reason", ["rejected", "expired"])
def test_a_rejected_look_is_cancelled_and_its_credits_released(client, local, pictures, waiting, reason):
    approval = approve(client, waiting, pictures)
    assert client.run(close_gate(client.caller, waiting.job_id, reason=reason)).confirmed
    assert client.credits.balance().credit_reserved == 0
    with pytest.raises(JobCancelledError):
        go_on(client, approval, pictures)


def test_a_lost_answer_to_resume_is_looked_after(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    left = [1]

    def lose(request, answer):
        response = answer()
        if request.path.endswith("/resume") and left.pop():
            left.append(0)
            raise httpx.ReadTimeout("lost")
        return response

    local.transport.meddle = lose
    assert go_on(client, approval, pictures).how == "resumed"
    assert local.requests("POST", f"/api/v1/jobs/{waiting.job_id}/resume") == 1


def test_a_job_without_a_keyframe_cannot_be_looked_at(client, local, pictures):
    job = client.jobs.create(LAMP)
    with pytest.raises(PurchaseError, match="no anchor keyframe"):
        approve(client, job, pictures)


def test_a_job_that_failed_at_its_gate_says_so(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    local.outcome(product_name="Lamp", fail_at="init")
    failed = client.jobs.create(LAMP)
    local.world.advance(600)
    with pytest.raises(JobFailedError):
        go_on(client, Approval(failed.job_id, approval.keyframe_id, approval.digest), pictures)


class TestWhereTheServiceEndsAStoppedJob:
    @pytest.fixture
    def readings(self):
        return {"stop_ends": "completed"}

    def test_going_on_is_a_retry_from_generation(self, client, local, pictures, waiting):
        assert (waiting.status, waiting.final_video_url) == ("completed", None)
        approval = approve(client, waiting, pictures)
        assert go_on(client, approval, pictures).how == "retried"
        assert client.jobs.wait(waiting.job_id).final_video_url
        assert go_on(client, approval, pictures).how == "already"
        assert (local.created, local.retried) == (1, 1)


class TestWhereTheServiceDoesNotCancelAPausedJob:
    @pytest.fixture
    def readings(self):
        return {"cancel_paused": "refused"}

    def test_the_outcome_says_that_it_still_holds_its_credits(self, client, local, pictures, waiting):
        outcome = client.run(close_gate(client.caller, waiting.job_id, reason="rejected"))
        assert not outcome.confirmed
        assert outcome.job.status == "paused"
