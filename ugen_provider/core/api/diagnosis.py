# SPDX-License-Identifier: Apache-2.0
"""What this account's service does where its documentation is silent: found by reads and free calls only."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ugen_provider.core.api import operations, rules
from ugen_provider.core.api.effects import Flow, Now, Request, Response
from ugen_provider.core.api.errors import APIError, NotFoundError, UGenError
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.pages import read_page
from ugen_provider.core.api.states import state_of

_KNOWN_WORDS = frozenset({"pending", "processing", "paused", "completed", "failed", "cancelled", "canceled"})
_SAMPLE = {
    "product_name": "Estimate only",
    "product_image_url": "https://example.com/estimate.jpg",
    "segment_count": 1,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in snake_case.
        holds: Whether it is as assumed; None where this account could not tell.
        seen: What was seen.
        means: What that means for you, and what to do.
    """

    name: str
    holds: bool | None
    seen: str
    means: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order in which they were made."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing that was looked at is otherwise than assumed."""
        return all(finding.holds is not False for finding in self.findings)

    def __getitem__(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)


def diagnose(caller: Caller) -> Flow[Diagnosis]:
    """Look at what is assumed of the service. Free, and nothing is changed.

    Returns:
        The findings. A wrong key or no network ends it early, with the finding that says so.
    """
    findings: list[Finding] = []
    reached = yield from _reach(caller, findings)
    if reached:
        for look in (_jobs, _filter, _unknown_job, _transactions, _models, _estimate):
            try:
                findings.extend((yield from look(caller)))
            except UGenError as error:
                findings.append(Finding(look.__name__.strip("_"), None, str(error), "could not be looked at"))
    return Diagnosis(tuple(findings))


def _reach(caller: Caller, findings: list[Finding]) -> Flow[bool]:
    try:
        response: Response = yield from caller.answer(Request(method="GET", path="/credits/balance", point="balance"))
    except APIError as error:
        refused = error.status in {401, 403}
        name, means = ("key", "check the API key") if refused else ("reachable", "check the base URL")
        findings.append(Finding(name, False, str(error), means))
        return False
    except UGenError as error:
        findings.append(Finding("reachable", False, str(error), "check the base URL, the network and any proxy"))
        return False
    now: float = yield Now()
    findings.append(Finding("key", True, "accepted"))
    body = _json(response)
    free = body.get("available_credits") if isinstance(body, Mapping) else None
    enough = isinstance(free, int) and free > 0
    means = "" if enough else "buy credits before you start"
    findings.append(Finding("balance", enough if free is not None else None, f"{free} credits available", means))
    if (date := response.headers.get("date")) is not None:
        skew = abs(parsedate_to_datetime(date).timestamp() - now)
        findings.append(
            Finding(
                "clock",
                skew < 120,
                f"{skew:.0f} s apart",
                "" if skew < 120 else "set this machine's clock: webhooks are refused by their time",
            )
        )
    return True


def _jobs(caller: Caller) -> Flow[Sequence[Finding]]:
    request = Request(method="GET", path="/jobs", params=(("page", "1"), ("page_size", "20")), point="list")
    body = _json((yield from caller.answer(request)))
    items = read_page(body, page=1, page_size=20).items
    findings = [
        Finding(
            "list_shape",
            isinstance(body, Mapping),
            "an envelope with items" if isinstance(body, Mapping) else "a bare array",
            "" if isinstance(body, Mapping) else "how many pages there are is not told: reading ends at a short page",
        )
    ]
    if not items:
        return [*findings, Finding("jobs", None, "the account has no jobs yet", "run this again after the first one")]
    words = sorted({str(item.get("status")) for item in items})
    unknown = [word for word in words if word.lower() not in _KNOWN_WORDS]
    findings.append(
        Finding(
            "statuses",
            not unknown,
            ", ".join(words),
            f"{', '.join(unknown)} count as active: a job in such a state is waited for" if unknown else "",
        )
    )
    field = "job_id" if "job_id" in items[0] else "id" if "id" in items[0] else "none"
    findings.append(Finding("id_field", field != "none", field))
    created = [str(item["created_at"]) for item in items if item.get("created_at")]
    if len(created) > 1:
        newest_first = created == sorted(created, reverse=True)
        findings.append(
            Finding(
                "list_order",
                newest_first,
                "newest first" if newest_first else "another order",
                "" if newest_first else "several jobs that end at once cost a request each",
            )
        )
    keyed = all("idempotency_key" in item for item in items)
    findings.append(
        Finding(
            "keys_in_lists",
            keyed,
            "told" if keyed else "not told",
            "" if keyed else "an order whose answer was lost is not found again by itself once key_window is over",
        )
    )
    return findings


def _filter(caller: Caller) -> Flow[Sequence[Finding]]:
    request = Request(method="GET", path="/jobs", params=(("status", "completed"), ("page_size", "20")), point="list")
    body = _json((yield from caller.answer(request)))
    items = read_page(body, page=1, page_size=20).items
    if not items:
        return [Finding("status_filter", None, "no job matches 'completed'", "run this again after the first one")]
    right = all(state_of(str(item.get("status"))).value == "completed" for item in items)
    means = "" if right else "the filter is ignored: waiting for many jobs costs one request each"
    return [Finding("status_filter", right, "filters" if right else "lets others through", means)]


def _unknown_job(caller: Caller) -> Flow[Sequence[Finding]]:
    try:
        yield from caller.call(operations.get_job(str(uuid.UUID(int=0, version=4))))
    except NotFoundError:
        return [Finding("unknown_job", True, "404")]
    except APIError as error:
        return [Finding("unknown_job", False, str(error.status), "a deleted job is not told from another trouble")]
    return [Finding("unknown_job", False, "answered as if it existed", "a wrong job id cannot be told")]


def _transactions(caller: Caller) -> Flow[Sequence[Finding]]:
    page = yield from caller.call(operations.list_transactions(page_size=20))
    of_jobs = [item for item in page.items if item.get("type") in {"reserve", "consume", "release"}]
    if not of_jobs:
        return [Finding("transactions", None, "there are none yet", "run this again after the first job")]
    named = any(item.get("job_id") for item in of_jobs)
    means = "" if named else "how often a job was retried cannot be counted where no state store exists"
    return [Finding("transactions", named, "name their job" if named else "do not name their job", means)]


def _models(caller: Caller) -> Flow[Sequence[Finding]]:
    offered = [model.model_id for model in (yield from caller.call(operations.list_models()))]
    default = rules.DEFAULT_VIDEO_MODEL in offered
    return [
        Finding("models", bool(offered), ", ".join(offered) or "none"),
        Finding(
            "default_model",
            default,
            rules.DEFAULT_VIDEO_MODEL + (" is offered" if default else " is not offered"),
            "" if default else "name video_model in the connection, the resource or the client",
        ),
    ]


def _estimate(caller: Caller) -> Flow[Sequence[Finding]]:
    try:
        estimate = yield from caller.call(operations.estimate(_SAMPLE))
    except UGenError as error:
        return [Finding("estimate", False, str(error), "budgets need `assume_credits`: no estimate can be had")]
    return [Finding("estimate", True, f"{estimate.total_credits} credits for one segment")]


def _json(response: Response) -> Any:
    try:
        return json.loads(response.body)
    except ValueError:
        return None
