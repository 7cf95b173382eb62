# SPDX-License-Identifier: Apache-2.0
"""Does to a reply what a fault rule says."""

import dataclasses

from ugen_provider.emulator.api.errors import refused
from ugen_provider.emulator.api.http import Reply, Wire
from ugen_provider.emulator.world.faults import Fault
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.refusals import Refusal

_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
_WORDS = {429: "TOO_MANY_REQUESTS", 500: "INTERNAL_ERROR", 502: "BAD_GATEWAY", 503: "UNAVAILABLE", 504: "TIMEOUT"}


def spoil(reply: Reply, fault: Fault, readings: Readings) -> Reply:
    """Return what the client gets in the place of `reply`."""
    if reply.work is not None and not fault.instead:
        work = reply.work
        return dataclasses.replace(reply, work=lambda: spoil(work(), fault, readings))
    match fault.kind:
        case "status":
            wait = None if fault.retry_after is None else int(fault.retry_after)
            code = fault.code or _WORDS.get(fault.status, f"ERROR_{fault.status}")
            return refused(Refusal(fault.status, code, "A fault of the emulator", retry_after=wait), readings)
        case "expired":
            return refused(Refusal(403, "URL_EXPIRED", "This URL has expired"), readings)
        case "reset" | "lost":
            return dataclasses.replace(reply, wire=Wire(reset=True))
        case "slow":
            return dataclasses.replace(reply, wire=Wire(first_byte=fault.seconds))
        case "slow_body":
            return dataclasses.replace(reply, wire=Wire(body_seconds=fault.seconds))
        case "truncate":
            # At least the last byte is missing, or it would not be truncated.
            kept = min(int(len(reply.body) * fault.keep), max(0, len(reply.body) - 1))
            return dataclasses.replace(reply, wire=Wire(keep=kept))
        case "cut_short":
            return dataclasses.replace(reply, body=reply.body[: int(len(reply.body) * fault.keep)])
        case "malformed":
            return Reply(200, b'{"job_id": "550e8400-e29b-41d4-a716-446655440000", "status": "comp')
        case "bad_gateway":
            return Reply(502, _PAGE, "text/html")
        case "wrong_type":
            return Reply(200, _PAGE.replace(b"502 Bad Gateway", b"One moment"), "text/html")
        case _:
            return reply


def nothing_done() -> Reply:
    """Return the reply to a request that took no effect, before it is spoiled."""
    return Reply(503)
