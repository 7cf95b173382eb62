# SPDX-License-Identifier: Apache-2.0
"""What a task instance remembers over retries, clears and lost workers: Airflow's task state store, from 3.3 on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.jobs.intent import Intent, IntentStore
    from ugen_provider.core.jobs.scope import Scope

PREFIX = "ugen_intent_"
"""What the keys of intents begin with; the rest is a digest of the scope."""


def intent_key(scope: str) -> str:
    """Under which key the intent of a scope stands. One task instance may hold several, where mapped rows moved."""
    return PREFIX + hashlib.sha256(scope.encode()).hexdigest()[:24]


class TaskStateIntentStore:
    """Keeps intents in the state store of one task instance, where they never expire.

    Args:
        state: `context["task_state_store"]`.
    """

    durable = True

    def __init__(self, state: Any) -> None:
        self._state = state

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope."""
        from ugen_provider.core.jobs.intent import Intent

        stored = self._state.get(intent_key(scope))
        return Intent.from_dict(cast("Mapping[str, Any]", stored)) if isinstance(stored, Mapping) else None

    def write(self, intent: Intent) -> None:
        """Keep an intent; when this returns, Airflow's database has it."""
        from ugen_provider.version_compat import NEVER_EXPIRE

        self._state.set(intent_key(intent.scope), intent.to_dict(), retention=NEVER_EXPIRE)


def store_of(context: Context) -> IntentStore:
    """The store of this task instance; below Airflow 3.3 there is none, and the key alone protects."""
    from ugen_provider.core.jobs.intent import NoIntentStore

    state = context.get("task_state_store")
    return NoIntentStore() if state is None else TaskStateIntentStore(state)


def scope_of(context: Context, *, scope_key: str | None = None, namespace: str = "", part: str = "") -> Scope:
    """The scope of this task instance.

    Args:
        context: Airflow's.
        scope_key: Stands in for the map index.
        namespace: Of the connection.
        part: Tells apart what one task orders several of.
    """
    from ugen_provider.core.jobs.scope import task_scope

    ti = context["ti"]
    map_index = ti.map_index if ti.map_index is not None else -1
    key = scope_key if not part else f"{map_index if scope_key is None else scope_key}/{part}"
    return task_scope(
        dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=map_index, scope_key=key, namespace=namespace
    )
