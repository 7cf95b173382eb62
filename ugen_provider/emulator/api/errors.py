# SPDX-License-Identifier: Apache-2.0
"""The two error envelopes."""

from typing import Any

from ugen_provider.emulator.api.http import Reply, json_reply
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.refusals import Invalid, Refusal


def refused(refusal: Refusal, readings: Readings) -> Reply:
    """Return a refusal in the error envelope, `retry_after` where the readings put it."""
    status, code = refusal.status, refusal.code
    if status == 404 and readings.not_found == "detail":
        return json_reply(404, {"detail": refusal.message})
    if status == 404 and readings.not_found == "forbidden":
        status, code = 403, "FORBIDDEN"
    error: dict[str, Any] = {"code": code, "message": refusal.message}
    details = dict(refusal.details or {})
    body: dict[str, Any] = {"error": error}
    headers = dict(refusal.headers)
    if refusal.retry_after is not None:
        place = readings.retry_after
        if place.startswith("header"):
            headers["retry-after"] = str(refusal.retry_after)
        if place.endswith("details"):
            details["retry_after"] = refusal.retry_after
        if place == "error":
            error["retry_after"] = refusal.retry_after
        if place == "top":
            body["retry_after"] = refusal.retry_after
    if details:
        error["details"] = details
    return json_reply(status, body, headers)


def invalid(problem: Invalid) -> Reply:
    """Return a 422 in the validation envelope."""
    return json_reply(422, {"detail": problem.errors})
