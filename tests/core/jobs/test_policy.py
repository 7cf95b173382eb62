# SPDX-License-Identifier: Apache-2.0
"""The policy: the table of the protocol row by row, and properties over all combinations between the rows."""

import itertools

import pytest

from ugen_provider.core.api.models import Job
from ugen_provider.core.api.polling import failure_kind
from ugen_provider.core.jobs.policy import NextAction, PurchasePolicy, decide, effective_action
from ugen_provider.core.ledger.record import ENDS_ATTEMPT, Action, OrderRecord

MODERATION = {"error_message": "Rejected by content moderation"}
VALIDATION = {"error_message": "Invalid image"}
PASSING = {"error_message": "GPU went away"}
TOKEN = 2
"""Of the attempt that decides."""


def job(status, **more):
    return Job(job_id="j1", status=status, **more)


def action(kind, reason, *, state="confirmed", token=TOKEN - 1, number=0, job_id="j1"):
    return Action("o", number, job_id, kind, reason, token, at=1.0, state=state, action_id="a")


def record(**more):
    fields = {"order_key": "o", "purchase_number": 0, "key": "k", "body": {}, "fingerprint": "f", "scheme": 1}
    return OrderRecord(**{**fields, "written_at": 0.0, "job_id": "j1", **more})


def next_action(job, action=None, *, changed=False, body=None, **more):
    policy = PurchasePolicy(**more.pop("policy", {}))
    return decide(job, body=body or {}, token=TOKEN, policy=policy, action=action, changed=changed, **more)


A = NextAction
ROWS = [
    # the job, our action, the policy, next action for the same request and for a changed one
    ("active", job("processing"), None, {}, A.REATTACH, A.REATTACH),
    ("pending", job("pending"), None, {}, A.REATTACH, A.REATTACH),
    ("unknown status", job("awaiting_review"), None, {}, A.REATTACH, A.REATTACH),
    ("paused on interrupt", job("paused"), action("pause", "interrupt"), {}, A.RESUME, A.RESUME),
    ("paused at a gate", job("paused"), action("pause", "gate"), {}, A.AWAIT_APPROVAL, A.AWAIT_APPROVAL),
    ("paused by another, wait", job("paused"), None, {}, A.REATTACH, A.REATTACH),
    ("paused by another, fail", job("paused"), None, {"on_paused": "fail"}, A.FAIL, A.FAIL),
    ("completed", job("completed"), None, {}, A.REUSE, A.REUSE),
    ("completed before our cancel", job("completed"), action("cancel", "kill"), {}, A.REUSE, A.REUSE),
    ("failed, passing", job("failed", **PASSING), None, {}, A.RETRY_STAGE, A.NEXT_PURCHASE),
    (
        "failed, resubmit",
        job("failed", **PASSING),
        None,
        {"on_earlier_failure": "resubmit"},
        A.NEXT_PURCHASE,
        A.NEXT_PURCHASE,
    ),
    ("failed, fail", job("failed", **PASSING), None, {"on_earlier_failure": "fail"}, A.FAIL, A.NEXT_PURCHASE),
    ("failed: moderation", job("failed", **MODERATION), None, {}, A.FAIL, A.NEXT_PURCHASE),
    ("failed: validation", job("failed", **VALIDATION), None, {}, A.FAIL, A.NEXT_PURCHASE),
    *[
        (
            f"cancelled: {reason}, earlier attempt",
            job("cancelled"),
            action("cancel", reason),
            {},
            *[A.NEXT_PURCHASE] * 2,
        )
        for reason in ("kill", "run_end", "terminate", "timeout", "regenerate")
    ],
    *[
        (f"cancelled: {reason}", job("canceled"), action("cancel", reason), {}, A.FAIL, A.FAIL)
        for reason in ("rejected", "expired", "over_max_credits", "operator", "cli")
    ],
    ("cancelled by another user", job("cancelled"), None, {}, A.FAIL, A.FAIL),
]


@pytest.mark.parametrize(
    ("job", "action", "policy", "same", "changed"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_decide_follows_the_table(job, action, policy, same, changed):
    assert next_action(job, action, policy=policy).action is same
    assert next_action(job, action, policy=policy, changed=True).action is changed


@pytest.mark.parametrize("reason", [*sorted(ENDS_ATTEMPT), "timeout"])
@pytest.mark.parametrize("token", [TOKEN - 1, TOKEN, TOKEN + 1])
def test_decide_cancelled_job_buys_only_for_a_later_attempt(reason, token):
    decision = next_action(job("cancelled"), action("cancel", reason, token=token))
    assert decision.action is (A.NEXT_PURCHASE if token < TOKEN else A.STOP)


@pytest.mark.parametrize("status", ["processing", "paused"])
@pytest.mark.parametrize("reason", [*sorted(ENDS_ATTEMPT), "timeout", "cli", "rejected"])
@pytest.mark.parametrize("state", ["recorded", "sent"])
@pytest.mark.parametrize("token", [TOKEN - 1, TOKEN])
def test_decide_unconfirmed_cancel_is_repeated_or_withdrawn(status, reason, state, token):
    decision = next_action(job(status), action("cancel", reason, state=state, token=token))
    if reason in ENDS_ATTEMPT and token == TOKEN:
        assert decision.action is A.STOP
    else:
        assert decision.action is (A.CANCEL_AGAIN if state == "sent" else A.WITHDRAW_CANCEL)


@pytest.mark.parametrize(("armed", "expected"), [(1, A.NEXT_PURCHASE), (2, A.STOP), (3, A.STOP), (None, A.FAIL)])
def test_decide_cancelled_job_of_an_armed_record_is_ours(armed, expected):
    assert next_action(job("cancelled"), armed_token=armed).action is expected


def test_decide_stage_retries_are_counted_over_all_attempts():
    actions = [next_action(job("failed", **PASSING), stage_retries=n).action for n in range(4)]
    assert actions == [A.RETRY_STAGE, A.RETRY_STAGE, A.FAIL, A.FAIL]


def test_decide_job_that_should_stop_awaits_approval():
    decision = next_action(job("paused", current_stage="init"), body={"stop_at_stage": "init"})
    assert decision.action is A.AWAIT_APPROVAL


def test_decide_changed_request_says_how_to_buy_it():
    for status in ("processing", "completed"):
        assert "regenerate" in next_action(job(status), changed=True).message


def test_decide_failure_says_what_to_do_next():
    for _, given, done, policy, *_ in ROWS:
        for changed in (False, True):
            decision = next_action(given, done, policy=policy, changed=changed)
            if decision.action is A.FAIL:
                assert any(words in decision.message for words in ("regenerate", "change the request", "resume"))


def test_decide_never_buys_while_a_job_may_live():
    actions = [
        None,
        *[
            action("cancel", reason, state=state, token=token)
            for reason in ("kill", "rejected")
            for state in ("recorded", "sent", "confirmed")
            for token in (1, 2, 3)
        ],
        action("pause", "interrupt"),
    ]
    statuses = ["pending", "processing", "paused", "completed", "brand_new_word"]
    for status, done, changed, retries, failure, paused, armed in itertools.product(
        statuses, actions, (False, True), (0, 5), ("retry_stage", "resubmit", "fail"), ("wait", "fail"), (None, 1, 2)
    ):
        policy = {"on_earlier_failure": failure, "on_paused": paused}
        decision = next_action(
            job(status), done, changed=changed, stage_retries=retries, policy=policy, armed_token=armed
        )
        assert decision.action is not A.NEXT_PURCHASE


def test_effective_action_ignores_other_purchases_and_jobs():
    cancel, pause = action("cancel", "kill"), action("pause", "interrupt")
    others = [action("cancel", "kill", number=1), action("cancel", "kill", job_id="j0")]
    withdrawn = action("cancel", "kill", state="withdrawn")
    assert effective_action(record(), [*others, withdrawn]) is None
    assert effective_action(record(), [*others, pause, withdrawn]) is pause
    assert effective_action(record(), [cancel, pause]) is cancel


@pytest.mark.parametrize(
    ("words", "kind"),
    [(MODERATION, "moderation"), (VALIDATION, "validation"), (PASSING, "passing"), ({}, "passing")],
)
def test_failure_kind_reads_the_service_s_words(words, kind):
    assert failure_kind(job("failed", **words)) == kind
