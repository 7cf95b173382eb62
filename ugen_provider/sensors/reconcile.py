# SPDX-License-Identifier: Apache-2.0
"""`UGenReconcileSensor`: reconciles until nothing is owed."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ugen_provider.operators.arguments import refusing, require_named
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.operators.reconcile import reconcile_once
from ugen_provider.sensors.jobs import UGenSensor

if TYPE_CHECKING:
    from airflow.sdk import Context


class UGenReconcileSensor(UGenSensor):
    """Settle what is owed in a ledger, round by round, until nothing is owed. Free; see `UGenReconcileOperator`.

    Args:
        ledger_conn_id: The connection of the ledger's database. Default: the one that the connection names.
        ugen_conn_id: The connection.

    Returns:
        The report of the last round.

    Examples:
        >>> UGenReconcileSensor(task_id="settled", ledger_conn_id="ugen_ledger", mode="reschedule")
        <Task(UGenReconcileSensor): settled>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "ledger_conn_id")

    def __init__(
        self,
        *,
        ledger_conn_id: str | None = None,
        poke_interval: float = 300.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.ledger_conn_id = ledger_conn_id
        with refusing():
            if ledger_conn_id is not None:
                require_named("ledger_conn_id", ledger_conn_id)

    def poke(self, context: Context) -> Any:  # noqa: ARG002
        """Do one round of the reconciler."""
        from airflow.sdk import PokeReturnValue

        with fail_without_retry(self.ugen_conn_id):
            report = reconcile_once(self.hook, ledger_conn_id=self.ledger_conn_id, collects=True)
        return PokeReturnValue(is_done=report["ran"] and not report["owed"], xcom_value=report)
