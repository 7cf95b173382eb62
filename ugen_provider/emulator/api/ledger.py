# SPDX-License-Identifier: Apache-2.0
"""The credits endpoints."""

from pydantic_core import to_json

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.api.call import Call, page_json, page_of, window
from ugen_provider.emulator.api.http import Reply, json_reply
from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.refusals import not_found
from ugen_provider.emulator.world.spec import JobSpec


def balance(call: Call) -> Reply:
    """`GET /credits/balance`."""
    books = call.tenant.books
    return json_reply(
        200,
        {
            "credit_balance": books.balance,
            "credit_reserved": books.reserved,
            "available_credits": books.available,
        },
    )


def transactions(call: Call) -> Reply:
    """`GET /credits/transactions`, newest first."""
    page, size = page_of(call)
    books = call.tenant.books
    job_id = call.request.params().get("job_id")
    rows = books.rows if job_id is None else books.of_job(job_id)
    shown = [
        to_json(
            {
                "id": row.id,
                "type": row.type,
                "amount": row.amount,
                "job_id": row.job_id,
                "description": row.description,
                "balance_before": row.balance_before,
                "balance_after": row.balance_after,
                "created_at": iso(row.at, form=call.readings.timestamps),
            }
        )
        for row in window(rows, page, size, newest_first=True, shift=call.shift)
    ]
    return page_json(call, shown, total=len(rows), page=page, size=size)


def estimate(call: Call) -> Reply:
    """`POST /credits/estimate`: what a job with these fields would reserve. Free."""
    if call.readings.estimate_form == "missing":
        raise not_found("Endpoint")
    body = call.body(bodies.Estimate)
    parts = call.world.desk.estimate(JobSpec.of(body.model_dump()))
    return json_reply(200, {call.readings.estimate_form: sum(parts.values()), "breakdown": parts})
