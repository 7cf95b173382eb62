# SPDX-License-Identifier: Apache-2.0
"""The cancelling table as a function; what each process looks up for it is tested in a real Airflow."""

from __future__ import annotations

import pytest

from ugen_provider.triggers.events import LOOK_BACK, OVERLAP, Cursor
from ugen_provider.triggers.killing import OVER, Watch, may_cancel

MINE = Watch("job", "ugen_default", "scope", attempt=1, cancel_on_kill=True)
NEXT = Watch("job", "ugen_default", "scope", attempt=2, cancel_on_kill=True)
COMES_BACK = [None, "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"]


@pytest.mark.parametrize("state", sorted(OVER))
def test_who_ended_this_attempt_cancels(state: str) -> None:
    assert may_cancel(state=state, gone=False, watched=MINE, attempt=1, shared=False)


@pytest.mark.parametrize("state", COMES_BACK)
def test_where_somebody_comes_back_the_job_is_left(state: str | None) -> None:
    assert not may_cancel(state=state, gone=False, watched=MINE, attempt=1, shared=False)


@pytest.mark.parametrize("state", [*sorted(OVER), *COMES_BACK])
def test_a_newer_attempt_is_not_robbed_of_its_job(state: str | None) -> None:
    assert not may_cancel(state=state, gone=False, watched=NEXT, attempt=1, shared=False)
    assert not may_cancel(state=state, gone=False, watched=None, attempt=1, shared=False)


def test_a_task_instance_that_is_gone_cancels() -> None:
    assert may_cancel(state=None, gone=True, watched=None, attempt=1, shared=False)


@pytest.mark.parametrize("gone", [True, False])
def test_of_two_that_share_a_job_neither_cancels(gone: bool) -> None:
    assert not may_cancel(state="failed", gone=gone, watched=MINE, attempt=1, shared=True)


def test_what_is_no_watch_counts_as_none() -> None:
    assert [Watch.from_dict(stored) for stored in (None, "x", {}, {"job_id": "j"})] == [None] * 4
    assert Watch.from_dict({**MINE.to_dict(), "of_a_later_version": 1}) == MINE


class TestCursor:
    def test_each_job_is_told_once_however_late_its_list(self) -> None:
        cursor = Cursor(1000.0)
        told = [
            cursor.is_news(*seen) for seen in [("a", 1001.0), ("a", 1001.0), ("b", 900.0), ("c", 2000.0), ("b", 900.0)]
        ]
        assert told == [True, False, True, True, False]

    def test_what_ended_before_it_began_is_not_told(self) -> None:
        assert not Cursor(1000.0 + OVERLAP).is_news("old", 999.0)

    def test_it_survives_a_restart(self) -> None:
        cursor = Cursor(1000.0)
        cursor.is_news("a", 1001.0)
        restored = Cursor.from_dict(cursor.to_dict())
        assert restored is not None
        assert not restored.is_news("a", 1001.0)
        assert Cursor.from_dict({"since": "x"}) is None
        assert LOOK_BACK > OVERLAP
