# SPDX-License-Identifier: Apache-2.0
"""A service profile spoken by the emulator: names, words, envelopes, paging and statuses of another plausible service.

The rows are those of the client's `service_profile`, with the same names and values; of a row with several values the
emulator speaks the first. Everything inside works in the documented form: requests are brought into it, replies out of
it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from pydantic_core import from_json, to_json

from ugen_provider.emulator.api import jobs
from ugen_provider.emulator.api.http import Handler, HttpRequest, Reply

_JOB_NAMES = {
    "id_names": "job_id",
    "status_names": "status",
    "video_names": "final_video_url",
    "thumbnail_names": "thumbnail_url",
    "key_names": "idempotency_key",
    "reserved_names": "credits_reserved",
    "consumed_names": "credits_consumed",
}
_CREDIT_NAMES = {
    "available_names": "available_credits",
    "balance_names": "credit_balance",
    "estimate_names": "total_credits",
}
_STATUSES = ("conflict_statuses", "not_found_statuses", "expired_statuses")
_LISTS = ("envelopes", "list_names", "own_error_names", *_STATUSES, *_JOB_NAMES, *_CREDIT_NAMES)
_OTHERS: Mapping[str, type] = {
    "status_map": dict,
    "page_parameter": str,
    "page_size_parameter": str,
    "paging": str,
    "first_page": int,
    "completed_without_video": bool,
    "list_days": float,
    "list_lag": float,
}
_NUMBERS = frozenset({"list_days", "list_lag"})
ROWS = frozenset({*_LISTS, *_OTHERS})
"""Rows of a service profile: the same names as in the client's."""

_MEANINGS = ("pending", "processing", "paused", "completed", "failed", "cancelled")
_JOB = frozenset({jobs.create, jobs.get, jobs.cancel, jobs.pause, jobs.resume, jobs.retry})
_CREDITS = frozenset({jobs.balance, jobs.estimate})
_PAGED = frozenset({jobs.listing, jobs.transactions})
_ROWS_OF_A_JOB = frozenset({jobs.keyframes, jobs.videos})


def _checked(rows: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, given in rows.items():
        value = given
        if name not in ROWS:
            raise ValueError(f"no row of a profile is called {name!r}; there are: {', '.join(sorted(ROWS))}")
        if name in _LISTS:
            values = [value] if isinstance(value, str | int) else value
            kind = int if name in _STATUSES else str
            if not isinstance(values, list | tuple) or not values or not all(isinstance(one, kind) for one in values):
                raise ValueError(f"{name} of a profile is a list")
            value = values[0]
        elif not isinstance(value, _OTHERS[name] if name not in _NUMBERS else int | float):
            raise ValueError(f"{name} of a profile cannot be {value!r}")
        checked[name] = value
    if checked.get("paging", "number") not in ("number", "offset"):
        raise ValueError("paging of a profile is number or offset")
    return checked


@dataclass(frozen=True, slots=True)
class Dialect:
    """The rows in which the emulator differs from its documentation.

    Examples:
        >>> Dialect.of({"id_names": ["uuid"], "status_map": {"cooked": "completed"}}).word("completed")
        'cooked'
    """

    rows: Mapping[str, Any]

    @classmethod
    def of(cls, rows: Mapping[str, Any]) -> "Dialect":
        """Read a profile.

        Raises:
            ValueError: A row does not exist, or its value is of another kind.
        """
        return cls(_checked(rows))

    def word(self, status: str) -> str:
        """Return the word for a documented status."""
        meaning = "active" if status in ("pending", "processing") else status
        words = [word for word, meant in self.rows.get("status_map", {}).items() if meant == meaning]
        return (words[-1] if status == "processing" else words[0]) if words else status

    def request(self, request: HttpRequest, handler: Handler) -> HttpRequest:
        """Return a request for a list in the documented parameters."""
        if handler not in _PAGED:
            return request
        rows, given = self.rows, request.params()
        size = given.pop(rows.get("page_size_parameter", "page_size"), None)
        page = given.pop(rows.get("page_parameter", "page"), None)
        if size is not None:
            given["page_size"] = size
        if page is not None and page.isdigit():
            offset = rows.get("paging") == "offset"
            number = int(page) // int(size or 20) if offset else int(page) - int(rows.get("first_page", 1))
            page = str(number + 1)
        if page is not None:
            given["page"] = page
        if "status" in given:
            given["status"] = next((own for own in _MEANINGS if self.word(own) == given["status"]), given["status"])
        return dataclasses.replace(request, query=urlencode(given))

    def reply(self, reply: Reply, handler: Handler) -> Reply:
        """Return a success in the words of this dialect."""
        if not reply.body or reply.status >= 400:
            return reply
        body = from_json(reply.body)
        if handler in _JOB:
            body = self._wrapped(self._job(body))
        elif handler in _CREDITS:
            body = self._wrapped(self._renamed(body, _CREDIT_NAMES))
        elif handler in _PAGED:
            body = self._listed(body, self._job if handler is jobs.listing else dict)
        elif handler in _ROWS_OF_A_JOB:
            body = self._listed(body, dict)
        return dataclasses.replace(reply, body=to_json(body))

    def refusal(self, reply: Reply, handler: Handler | None) -> Reply:
        """Return a refusal with the statuses and in the form of this dialect."""
        if reply.media_type != "application/json" or not reply.body or reply.status < 400:
            return reply
        body = json.loads(reply.body)
        error = body.get("error")
        if not isinstance(error, Mapping):
            return reply
        status = reply.status
        if error.get("code") == "IDEMPOTENCY_CONFLICT":
            status = self.rows.get("conflict_statuses", status)
        elif error.get("code") == "URL_EXPIRED":
            status = self.rows.get("expired_statuses", status)
        elif status == 404 and handler in _JOB:
            status = self.rows.get("not_found_statuses", status)
        name = self.rows.get("own_error_names", "error")
        if name != "error":
            rest = {} if name == "detail" else {key: value for key, value in error.items() if key != "message"}
            body = {name: error.get("message"), **rest}
        return dataclasses.replace(reply, status=status, body=to_json(body))

    def _job(self, fields: Any) -> dict[str, Any]:
        told = dict(fields)
        if "status" in told:
            told["status"] = self.word(told["status"])
        if self.rows.get("completed_without_video"):
            told["final_video_url"] = None
        return self._renamed(told, _JOB_NAMES)

    def _renamed(self, fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        spoken = {ours: self.rows[row] for row, ours in names.items() if row in self.rows}
        return {spoken.get(name, name): value for name, value in fields.items()}

    def _wrapped(self, body: dict[str, Any]) -> dict[str, Any]:
        return {self.rows["envelopes"]: body} if "envelopes" in self.rows else body

    def _listed(self, body: Any, row: Callable[[Any], Any]) -> Any:
        if isinstance(body, list):
            rows = [row(item) for item in body]
            return {self.rows["list_names"]: rows} if "list_names" in self.rows else rows
        rows = [row(item) for item in body.pop("items")]
        return {self.rows.get("list_names", "items"): rows, **body}
