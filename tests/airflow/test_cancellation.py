# SPDX-License-Identifier: Apache-2.0
"""The cancelling table as a function, and the signed job references; a real Airflow tests how each process asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.airflow.conftest import TaskInstance
from ugen_provider.core.api.config import Secret
from ugen_provider.core.ledger.record import RecordSigner
from ugen_provider.triggers.cancellation import (
    OVER,
    JobRef,
    attempt_name,
    parse_attempt,
    place_of,
    should_cancel,
)
from ugen_provider.triggers.events import LOOK_BACK, OVERLAP, EventCursor

COMES_BACK = [
    None,
    "scheduled",
    "queued",
    "running",
    "deferred",
    "awaiting_input",
    "up_for_retry",
    "up_for_reschedule",
    "restarting",
]
SIGNER = RecordSigner(Secret("secret"))


@pytest.mark.parametrize("state", sorted(OVER))
def test_should_cancel_ended_attempt_cancels(state: str) -> None:
    assert should_cancel(state=state, gone=False, published="1", attempt="1", shared=False)


@pytest.mark.parametrize("state", COMES_BACK)
def test_should_cancel_attempt_that_follows_leaves(state: str | None) -> None:
    assert not should_cancel(state=state, gone=False, published="1", attempt="1", shared=False)


@pytest.mark.parametrize("published", ["2", None])
@pytest.mark.parametrize("state", [*sorted(OVER), *COMES_BACK])
def test_should_cancel_newer_attempt_keeps_its_job(state: str | None, published: str | None) -> None:
    assert not should_cancel(state=state, gone=False, published=published, attempt="1", shared=False)


def test_should_cancel_task_instance_gone_cancels() -> None:
    assert should_cancel(state=None, gone=True, published=None, attempt="1", shared=False)


@pytest.mark.parametrize("gone", [True, False])
def test_should_cancel_shared_job_leaves(gone: bool) -> None:
    assert not should_cancel(state="failed", gone=gone, published="1", attempt="1", shared=True)


def test_attempt_name_round_trip() -> None:
    ti = TaskInstance(id="0190", task_id="make.video", map_index=3)
    assert parse_attempt(attempt_name(ti)) == ("0190", "make.video", 3)
    assert [parse_attempt(name) for name in ("", "uuid", "run:step 1", "a b c")] == [None] * 4


class TestJobRef:
    ti = TaskInstance(id="0190")
    ref = JobRef("j1", "ugen_default", "0190 job -1", order_key="k", token=1, cancel_on_kill=True)

    def test_verified_own_reference_is_read(self) -> None:
        assert JobRef.verified(self.ref.signed(self.ti, SIGNER), place_of(self.ti), SIGNER) == self.ref

    @pytest.mark.parametrize(
        "change",
        [
            {"job_id": "j2"},
            {"cancel_on_kill": False},
            {"attempt": "0191 job -1"},
            {"token": 2},
            {"mac": "x"},
            {"mac": 1},
        ],
        ids=str,
    )
    def test_verified_changed_field_is_refused(self, change: dict[str, object]) -> None:
        stored = {**self.ref.signed(self.ti, SIGNER), **change}
        assert JobRef.verified(stored, place_of(self.ti), SIGNER) is None

    @pytest.mark.parametrize("other", [{"task_id": "x"}, {"run_id": "x"}, {"dag_id": "x"}, {"map_index": 1}], ids=str)
    def test_verified_copy_of_another_task_is_refused(self, other: dict[str, object]) -> None:
        stored = self.ref.signed(self.ti, SIGNER)
        assert JobRef.verified(stored, place_of(replace(self.ti, **other)), SIGNER) is None  # type: ignore[arg-type]

    def test_verified_rotated_secret_still_verifies(self) -> None:
        stored = self.ref.signed(self.ti, SIGNER)
        rotated = RecordSigner(Secret("new"), previous=(Secret("secret"),))
        assert JobRef.verified(stored, place_of(self.ti), rotated) == self.ref
        assert JobRef.verified(stored, place_of(self.ti), RecordSigner(Secret("new"))) is None

    @pytest.mark.parametrize("stored", [None, "x", {}, {"job_id": "j"}, []], ids=str)
    def test_verified_other_value_is_none(self, stored: object) -> None:
        assert JobRef.verified(stored, place_of(self.ti), SIGNER) is None


class TestCursor:
    def test_each_job_is_reported_once_however_late_its_list(self) -> None:
        cursor = EventCursor(1000.0)
        reported = [
            cursor.is_news(*seen) for seen in [("a", 1001.0), ("a", 1001.0), ("b", 900.0), ("c", 2000.0), ("b", 900.0)]
        ]
        assert reported == [True, False, True, True, False]

    def test_a_job_that_ended_before_the_start_is_not_reported(self) -> None:
        assert not EventCursor(1000.0 + OVERLAP).is_news("old", 999.0)

    def test_it_survives_a_restart(self) -> None:
        cursor = EventCursor(1000.0)
        cursor.is_news("a", 1001.0)
        restored = EventCursor.from_dict(cursor.to_dict())
        assert restored is not None
        assert not restored.is_news("a", 1001.0)
        assert EventCursor.from_dict({"since": "x"}) is None
        assert LOOK_BACK > OVERLAP
