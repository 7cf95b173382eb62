# SPDX-License-Identifier: Apache-2.0
"""Finding the job of an order by its key, where the answer that named it was lost."""

from __future__ import annotations

from ugen_provider.core.api import operations
from ugen_provider.core.api.effects import Flow
from ugen_provider.core.api.errors import PurchaseError
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import Job
from ugen_provider.core.jobs.intent import Intent
from ugen_provider.core.jobs.scope import Scope

_PAGES = 50
_SLACK = 3600
"""Seconds by which the service's clock may differ from ours."""


def find_by_key(caller: Caller, intent: Intent, *, scope: Scope) -> Flow[Job | None]:
    """Look for an intent's key among the account's jobs. Free; pages of `GET /jobs`.

    Args:
        caller: Calls the service.
        intent: What was about to be bought.
        scope: The order, for the error.

    Returns:
        The job; None where the list shows that it was surely never bought.

    Raises:
        PurchaseError: The list does not tell.
    """
    undecided = False
    for number in range(1, _PAGES + 1):
        page = yield from caller.call(operations.list_jobs(page=number))
        for item in page.items:
            job = operations.read_listed_job(item)
            if job.idempotency_key == intent.key:
                return job
            recent = job.created_at is None or job.created_at.timestamp() >= intent.written_at - _SLACK
            undecided = undecided or (job.idempotency_key is None and recent)
        if not page.more:
            break
    else:
        undecided = True
    if undecided:
        raise PurchaseError(
            f"{scope.label}: an attempt {intent.key} may have bought a job, the service no longer has to remember its "
            "key, and its list does not tell; look at the account, then use `regenerate`",
            scope=str(scope),
            reason="undecidable",
        )
    return None
