# SPDX-License-Identifier: Apache-2.0
"""A ledger of version 1 keeps every fact: no order is forgotten, and none is bought again."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from ugen_provider.core.jobs.policy import NextAction, PurchasePolicy, decide, effective_action
from ugen_provider.core.ledger.database import engine_for
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.store import Ledger

FILES = Path(__file__).with_name("files")


def intent(scope, **more):
    """A document as version 1 kept it."""
    return {
        "scope": scope,
        "generation": 0,
        "key": f"key of {scope}",
        "body": {"product_name": "Lamp", "idempotency_key": f"key of {scope}"},
        "fingerprint": "f" * 64,
        "scheme": 1,
        "written_at": 1000.0,
        "refused": False,
        "job_id": None,
        "stage_retries": 0,
        "pending_retry": None,
        "regenerate": [],
        "action": None,
        "holder": "runner",
        "earlier": [],
        "armed": False,
        **more,
    }


INTENTS = {
    "bought": intent("bought", job_id="j1", stage_retries=1, regenerate=["a"], earlier=["j0"], generation=1),
    "unanswered": intent("unanswered"),
    "refused": intent("refused", refused=True),
    "cancelled": intent(
        "cancelled", job_id="j2", action={"kind": "cancel", "reason": "kill", "at": 5.0, "confirmed": True}
    ),
    "retrying": intent(
        "retrying",
        job_id="j3",
        pending_retry={"seen": {"status": "failed", "stage": "audio", "updated_at": None}, "reserves": 1},
    ),
}


@pytest.fixture
def old(address):
    """A ledger as the first version of this package left it."""
    engine = engine_for(address)
    script = (FILES / f"version-1.{engine.dialect.name}.sql").read_text()
    with engine.begin() as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                connection.execute(sa.text(statement))
        connection.execute(
            sa.text(
                "INSERT INTO ugen_catalogue (namespace, name, kind, mapping_version, scheme, created_at) "
                "VALUES ('', 'shop', 'google', 1, 1, 1.0)"
            )
        )
        insert = sa.text(
            "INSERT INTO ugen_intent (scope, catalogue_id, product_id, fingerprint, key, job_id, document, state, "
            "video, updated_at) VALUES (:scope, 1, :scope, :fingerprint, :key, :job_id, :document, 'completed', "
            "'https://s.example/v.mp4', 1.0)"
        )
        for document in INTENTS.values():
            values = {name: document[name] for name in ("scope", "fingerprint", "key", "job_id")}
            connection.execute(insert, {**values, "document": json.dumps(document)})
    engine.dispose()
    return address


def test_migration_keeps_every_order(old, monkeypatch):
    monkeypatch.setattr("ugen_provider.core.ledger.database.filesystem_of", lambda path: "ext4")
    with Ledger(old) as ledger:
        store = LedgerOrderStore(ledger)
        for scope, document in INTENTS.items():
            record = store.read(scope)
            for name in ("key", "body", "fingerprint", "job_id", "stage_retries", "written_at"):
                assert getattr(record, name) == document[name], (scope, name)
            assert record.purchase_number == document["generation"]
            assert record.earlier == tuple(document["earlier"])
            assert record.surely_not_bought is (scope == "refused")
        assert store.read("retrying").pending_retry.reserves == 1
        assert ledger.find_catalogue("shop").kind == "google"
        assert len(ledger.ledger_id) == 32
    with Ledger(old) as again:
        assert LedgerOrderStore(again).read("bought").regenerate == ("a",)
        assert again.catalogue("another").id != again.catalogue("shop").id


def test_migration_keeps_whose_cancel_it_was(old, monkeypatch):
    from ugen_provider.core.api.models import Job

    monkeypatch.setattr("ugen_provider.core.ledger.database.filesystem_of", lambda path: "ext4")
    with Ledger(old) as ledger:
        store = LedgerOrderStore(ledger)
        record = store.take_token("cancelled", "the next run")
        action = effective_action(record, store.actions("cancelled"))
        decision = decide(
            Job(job_id="j2", status="cancelled"),
            body=record.body,
            token=record.token,
            policy=PurchasePolicy(),
            action=action,
        )
        assert decision.action is NextAction.NEXT_PURCHASE
