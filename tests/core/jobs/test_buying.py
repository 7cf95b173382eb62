# SPDX-License-Identifier: Apache-2.0
"""The buying table of the protocol, row by row, and nothing between the rows."""

import itertools

import pytest

from ugen_provider.core.api.models import Job
from ugen_provider.core.jobs.buying import BuyingPolicy, Move, decide, failure_kind
from ugen_provider.core.jobs.intent import OurAction

MODERATION = {"error_message": "Rejected by content moderation"}
VALIDATION = {"error_message": "Invalid image"}
PASSING = {"error_message": "GPU went away"}


def job(status, **more):
    return Job(job_id="j1", status=status, **more)


def cancelled_by_us(reason, confirmed=True):
    return OurAction("cancel", reason, at=1.0, confirmed=confirmed)


def paused_by_us(reason):
    return OurAction("pause", reason, at=1.0, confirmed=True)


ROWS = [
    # the job is, our last action, the policy, move for the same request, move for a changed one
    ("active", job("processing"), None, {}, Move.ATTACH, Move.ATTACH),
    ("pending", job("pending"), None, {}, Move.ATTACH, Move.ATTACH),
    ("unknown status", job("awaiting_review"), None, {}, Move.ATTACH, Move.ATTACH),
    (
        "active, our cancel unconfirmed",
        job("processing"),
        cancelled_by_us("kill", False),
        {},
        Move.CANCEL_AGAIN,
        Move.CANCEL_AGAIN,
    ),
    (
        "paused, our cancel unconfirmed",
        job("paused"),
        cancelled_by_us("kill", False),
        {},
        Move.CANCEL_AGAIN,
        Move.CANCEL_AGAIN,
    ),
    ("paused by us on interrupt", job("paused"), paused_by_us("interrupt"), {}, Move.RESUME, Move.RESUME),
    ("paused by somebody, wait", job("paused"), None, {}, Move.ATTACH, Move.ATTACH),
    ("paused by somebody, fail", job("paused"), None, {"on_paused": "fail"}, Move.FAIL, Move.FAIL),
    ("completed", job("completed"), None, {}, Move.TAKE, Move.TAKE),
    ("completed although we cancelled", job("completed"), cancelled_by_us("kill"), {}, Move.TAKE, Move.TAKE),
    ("failed, mendable", job("failed", **PASSING), None, {}, Move.RETRY_STAGE, Move.NEXT_GENERATION),
    (
        "failed, resubmit",
        job("failed", **PASSING),
        None,
        {"on_earlier_failure": "resubmit"},
        Move.NEXT_GENERATION,
        Move.NEXT_GENERATION,
    ),
    ("failed, fail", job("failed", **PASSING), None, {"on_earlier_failure": "fail"}, Move.FAIL, Move.NEXT_GENERATION),
    ("failed: moderation", job("failed", **MODERATION), None, {}, Move.FAIL, Move.NEXT_GENERATION),
    ("failed: validation", job("failed", **VALIDATION), None, {}, Move.FAIL, Move.NEXT_GENERATION),
    (
        "cancelled by us: kill",
        job("cancelled"),
        cancelled_by_us("kill"),
        {},
        Move.NEXT_GENERATION,
        Move.NEXT_GENERATION,
    ),
    (
        "cancelled by us: timeout",
        job("canceled"),
        cancelled_by_us("timeout"),
        {},
        Move.NEXT_GENERATION,
        Move.NEXT_GENERATION,
    ),
    *[
        (f"cancelled by us: {reason}", job("cancelled"), cancelled_by_us(reason), {}, Move.FAIL, Move.FAIL)
        for reason in ("rejected", "expired", "over_max_credits", "operator", "cli")
    ],
    ("cancelled by somebody else", job("cancelled"), None, {}, Move.FAIL, Move.FAIL),
    ("404", None, None, {}, Move.FAIL, Move.FAIL),
]


@pytest.mark.parametrize(
    ("job", "action", "policy", "same", "changed"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_the_table(job, action, policy, same, changed):
    def move(is_changed):
        return decide(
            job, body={}, action=action, changed=is_changed, stage_retries=0, policy=BuyingPolicy(**policy)
        ).move

    assert move(False) is same
    assert move(True) is changed


def test_stage_retries_are_counted_over_all_attempts():
    moves = [
        decide(
            job("failed", **PASSING), body={}, action=None, changed=False, stage_retries=n, policy=BuyingPolicy()
        ).move
        for n in range(4)
    ]
    assert moves == [Move.RETRY_STAGE, Move.RETRY_STAGE, Move.FAIL, Move.FAIL]


def test_a_job_that_was_told_to_stop_stands_at_its_gate():
    decision = decide(
        job("paused", current_stage="init"),
        body={"stop_at_stage": "init"},
        action=None,
        changed=False,
        stage_retries=0,
        policy=BuyingPolicy(),
    )
    assert decision.move is Move.GATE


def test_a_changed_request_is_told_where_the_old_job_is_kept():
    for status in ("processing", "completed"):
        note = decide(job(status), body={}, action=None, changed=True, stage_retries=0, policy=BuyingPolicy()).note
        assert "regenerate" in note


def test_whatever_fails_says_what_to_do_next():
    for row in ROWS:
        for changed in (False, True):
            decision = decide(
                row[1], body={}, action=row[2], changed=changed, stage_retries=0, policy=BuyingPolicy(**row[3])
            )
            if decision.move is Move.FAIL:
                assert any(word in decision.note for word in ("regenerate", "change the request", "resume"))


def test_no_combination_buys_a_second_job_while_one_may_live():
    actions = [
        None,
        *[cancelled_by_us(r, c) for r in ("kill", "rejected") for c in (True, False)],
        paused_by_us("interrupt"),
    ]
    statuses = ["pending", "processing", "paused", "completed", "brand_new_word"]
    for status, action, changed, retries, failure, paused in itertools.product(
        statuses, actions, (True, False), (0, 9), ("retry_stage", "resubmit", "fail"), ("wait", "fail")
    ):
        policy = BuyingPolicy(on_earlier_failure=failure, on_paused=paused)
        decision = decide(job(status), body={}, action=action, changed=changed, stage_retries=retries, policy=policy)
        assert decision.move is not Move.NEXT_GENERATION


def test_an_unknown_reason_of_failure_counts_as_one_that_a_repeat_can_mend():
    assert failure_kind(job("failed")) == "passing"
