# SPDX-License-Identifier: Apache-2.0
"""The reconciler: owed actions, and attempts whose end fires no hook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.local import Attempts, Local
from ugen_provider.core.api.config import Secret
from ugen_provider.core.jobs.order import Order, origin_of, task_key
from ugen_provider.core.jobs.reconciler import CERTAINTY
from ugen_provider.core.jobs.sync.reconciler import reconcile
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import RecordSigner
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.settings import Settings

BODY = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.png", "segment_count": 1}
SIGNER = RecordSigner(Secret("secret"))


class Account:
    """A ledger, an account, and one order with an active job."""

    def __init__(self, folder: Path, **order: Any) -> None:
        self.local = Local(Settings(speed=0))
        self.local.outcome(slow=50.0)
        self.ledger = Ledger.init(str(folder / "l.db"), allow_ephemeral=True, now=self.local.world.now)
        self.client = self.local.client()
        self.store = LedgerOrderStore(self.ledger, signer=SIGNER)
        self.order = Order(
            key=task_key(dag_id="d", run_id="r", task_id="t"),
            origin=origin_of(self.client.config.base_url),
            **{"body": BODY, "cancel_on_kill": True, "attempt": "1 t -1", **order},
        )
        self.job_id = Attempts(self.client, self.store).buy(self.order).job.job_id

    def round(self, state: str, *, signer: RecordSigner = SIGNER) -> Any:
        def owner_state(*_: Any) -> Any:
            return {"alive": "alive", "unknown": "unknown"}.get(state, "over")

        store = LedgerOrderStore(self.ledger, signer=signer)
        return reconcile(
            World(self.client, store),
            self.ledger,
            owner="me",
            owner_state=owner_state,
            attempt_state=lambda _: state,  # type: ignore[arg-type,return-value]
        )

    @property
    def status(self) -> str:
        return self.client.jobs.get(self.job_id).state.value

    @property
    def actions(self) -> list[tuple[str, str, str]]:
        return [(each.kind, each.reason, each.state) for each in self.store.actions(self.order.record_key)]


def test_reconcile_ended_attempt_cancels_after_two_readings(tmp_path: Path) -> None:
    account = Account(tmp_path)
    account.round("ended")
    account.local.clock.sleep(CERTAINTY / 2)
    account.round("ended")
    assert (account.status, account.actions) == ("active", [("cancel", "run_end", "recorded")])
    account.local.clock.sleep(CERTAINTY)
    account.round("ended")
    assert (account.status, account.actions) == ("cancelled", [("cancel", "run_end", "confirmed")])


@pytest.mark.parametrize("state", ["alive", "unknown", "succeeded"])
def test_reconcile_other_state_leaves_the_job(tmp_path: Path, state: str) -> None:
    account = Account(tmp_path)
    account.round(state)
    assert (account.status, account.actions) == ("active", [])


def test_reconcile_attempt_alive_again_withdraws(tmp_path: Path) -> None:
    account = Account(tmp_path)
    account.round("ended")
    account.round("alive")
    assert (account.status, account.actions) == ("active", [("cancel", "run_end", "withdrawn")])


def test_reconcile_newer_attempt_keeps_its_job(tmp_path: Path) -> None:
    account = Account(tmp_path)
    account.round("ended")
    account.store.take_token(account.order.record_key, "2 t -1")
    account.round("ended")
    assert (account.status, account.actions[0]) == ("active", ("cancel", "run_end", "withdrawn"))


def test_reconcile_without_cancel_on_kill_leaves_the_job(tmp_path: Path) -> None:
    account = Account(tmp_path, cancel_on_kill=False)
    account.round("ended")
    assert (account.status, account.actions) == ("active", [])


@pytest.mark.parametrize(
    ("policy", "action"), [("collect", ("collect", "final_failure")), ("cancel", ("cancel", "timeout"))]
)
def test_reconcile_failed_attempt_follows_on_final_failure(tmp_path: Path, policy: str, action: Any) -> None:
    account = Account(tmp_path, on_final_failure=policy)
    account.round("failed")
    assert account.actions[0][:2] == action
    assert account.status == ("active" if policy == "collect" else "cancelled")
    account.round("failed")
    assert len(account.actions) == 1


def test_reconcile_record_of_other_signer_is_left(tmp_path: Path) -> None:
    account = Account(tmp_path)
    account.round("ended", signer=RecordSigner(Secret("another")))
    assert (account.status, account.actions) == ("active", [])


def test_reconcile_gate_of_ended_run_is_cancelled(tmp_path: Path) -> None:
    account = Account(tmp_path, body={**BODY, "stop_at_stage": "init"})
    account.local.clock.sleep(24 * 3600.0)
    assert account.client.jobs.get(account.job_id).state.value == "paused"
    account.round("ended")
    account.local.clock.sleep(CERTAINTY + 1)
    account.round("ended")
    assert account.status == "cancelled"


def test_reconcile_replaced_record_is_not_trusted(tmp_path: Path) -> None:
    account = Account(tmp_path)
    record = account.store.read(account.order.record_key)
    assert record is not None
    LedgerOrderStore(account.ledger).write(replace(record, attempt="9 other -1"))  # by a process without the secret
    account.round("ended")
    assert (account.status, account.actions) == ("active", [])
