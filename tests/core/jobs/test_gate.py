# SPDX-License-Identifier: Apache-2.0
"""Money goes into the very picture that was approved, and into it once."""

import hashlib

import httpx
import pytest

from ugen_provider import CreateJob, JobCancelledError, JobFailedError, PurchaseError
from ugen_provider.core.jobs.approval import Approval
from ugen_provider.core.jobs.sync.actions import cancel_job, read_keyframe, resume_approved
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger.record import KeyOnlyStore

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
    """A job that waits at its gate."""
    job = client.jobs.create(LAMP)
    local.world.advance(600)
    return client.jobs.get(job.job_id)


def approve(client, job, pictures):
    keyframe = read_keyframe(World(client, KeyOnlyStore()), job.job_id, digest_of=pictures.digest)
    return Approval.of(keyframe, by="anna", at=1.0)


def resume(client, approval, pictures, **more):
    return resume_approved(World(client, KeyOnlyStore()), approval, digest_of=pictures.digest, **more)


def test_an_approved_keyframe_leads_to_its_video(client, local, pictures, waiting):
    approval = Approval.from_dict(approve(client, waiting, pictures).to_dict())
    assert resume(client, approval, pictures).outcome == "resumed"
    assert client.jobs.wait(waiting.job_id).final_video_url
    assert local.created == 1


def test_approving_twice_buys_once(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    resume(client, approval, pictures)
    assert resume(client, approval, pictures).outcome == "already"
    client.jobs.wait(waiting.job_id)
    assert resume(client, approval, pictures).outcome == "already"
    assert local.requests("POST", f"/api/v1/jobs/{waiting.job_id}/resume") == 1


def test_a_picture_that_was_made_again_is_not_paid_for(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    pictures.version = 2
    with pytest.raises(PurchaseError, match="made again") as caught:
        resume(client, approval, pictures)
    assert caught.value.reason == "approval_outdated"
    assert client.jobs.get(waiting.job_id).status == "paused"


def test_an_approval_of_another_job_opens_nothing(client, local, pictures, waiting):
    other = client.jobs.create(LAMP)
    local.world.advance(600)
    approval = approve(client, other, pictures)
    stolen = Approval(waiting.job_id, approval.keyframe_id, approval.digest)
    with pytest.raises(PurchaseError):
        resume(client, stolen, pictures)


@pytest.mark.parametrize("spending", ["reuse_only", "off"])
def test_without_permission_to_spend_nothing_continues(client, local, pictures, waiting, spending):
    with pytest.raises(PurchaseError, match="spending"):
        resume(client, approve(client, waiting, pictures), pictures, spending=spending)
    assert client.jobs.get(waiting.job_id).status == "paused"


def test_a_rejected_look_is_cancelled_and_its_credits_released(client, local, pictures, waiting):
    approval = approve(client, waiting, pictures)
    assert cancel_job(World(client, KeyOnlyStore()), waiting.job_id).confirmed
    assert client.credits.balance().credit_reserved == 0
    with pytest.raises(JobCancelledError):
        resume(client, approval, pictures)


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
    assert resume(client, approval, pictures).outcome == "resumed"
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
        resume(client, Approval(failed.job_id, approval.keyframe_id, approval.digest), pictures)


class TestWhereTheServiceEndsAStoppedJob:
    @pytest.fixture
    def readings(self):
        return {"stop_ends": "completed"}

    def test_continuing_is_a_retry_from_generation(self, client, local, pictures, waiting):
        assert (waiting.status, waiting.final_video_url) == ("completed", None)
        approval = approve(client, waiting, pictures)
        assert resume(client, approval, pictures).outcome == "retried"
        assert client.jobs.wait(waiting.job_id).final_video_url
        assert resume(client, approval, pictures).outcome == "already"
        assert (local.created, local.retried) == (1, 1)


class TestWhereTheServiceDoesNotCancelAPausedJob:
    @pytest.fixture
    def readings(self):
        return {"cancel_paused": "refused"}

    def test_the_outcome_says_that_it_still_holds_its_credits(self, client, local, pictures, waiting):
        outcome = cancel_job(World(client, KeyOnlyStore()), waiting.job_id)
        assert not outcome.confirmed
        assert outcome.job.status == "paused"
