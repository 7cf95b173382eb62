# SPDX-License-Identifier: Apache-2.0
"""Faults between a client and the service, by rule. Jobs that fail are in `pipeline`, not here.

Kinds:

- `status`: answers `status` (with `retry_after` if given); `done` says whether the request took effect first.
- `reset`: the connection is reset; with `done` after the request took effect.
- `lost`: `reset` with `done`: the request took effect, and its answer is lost.
- `slow`: the first byte comes after `seconds`.
- `slow_body`: the body takes `seconds`.
- `truncate`: `Content-Length` is right, but the connection closes after `keep` of the body.
- `cut_short`: a whole answer, of which only `keep` is there; `Content-Length` agrees with it.
- `malformed`: 200 with JSON that ends in the middle.
- `bad_gateway`: 502 with a page of HTML.
- `wrong_type`: 200 with a page of HTML.
- `shift`: on pages after the first, the list has moved by `shift` items since.
- `expired`: 403, as for an output URL whose time is over.

For webhooks, where `path` is the receiver's whole URL:

- `webhook_twice`: the event is delivered twice.
- `webhook_late`: it leaves after `seconds`, so that later events overtake it.
- `webhook_lost`: it is never sent.
- `webhook_forged`: it is signed with another secret.
- `webhook_stale`: it is stamped an hour ago.
"""

import fnmatch
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = (
    "status",
    "reset",
    "lost",
    "slow",
    "slow_body",
    "truncate",
    "cut_short",
    "malformed",
    "bad_gateway",
    "wrong_type",
    "shift",
    "expired",
    "webhook_twice",
    "webhook_late",
    "webhook_lost",
    "webhook_forged",
    "webhook_stale",
)
_INSTEAD = frozenset({"status", "reset", "malformed", "bad_gateway", "wrong_type", "expired"})


@dataclass(slots=True, kw_only=True)
class Fault:
    """A rule: which requests it meets, when, and what happens to them.

    Attributes:
        kind: See the module.
        method: HTTP method; `*` is any.
        path: Shell pattern for the path, such as `/api/v1/jobs/*/retry`.
        key: Shell pattern for the `idempotency_key` in the body.
        tenant: Name of the account.
        nth: From which matching request on, counted from 1.
        times: For how many requests; `None` for every one.
        probability: Seeded chance that it happens to a request that matches.
        status: For kind `status`.
        retry_after: For kind `status`, in seconds.
        code: Code in the error envelope, for kind `status`.
        done: Whether the request takes effect before it goes wrong.
        seconds: For `slow`, `slow_body` and `webhook_late`, by the emulator's clock.
        keep: Share of the body that arrives, for `truncate` and `cut_short`.
        shift: For kind `shift`; negative shows items again.
        seen: How many requests have matched.
        hits: How many it has happened to.
    """

    kind: str
    method: str = "*"
    path: str = "*"
    key: str | None = None
    tenant: str | None = None
    nth: int = 1
    times: int | None = 1
    probability: float = 1.0
    status: int = 503
    retry_after: float | None = None
    code: str | None = None
    done: bool = False
    seconds: float = 30.0
    keep: float = 0.5
    shift: int = 1
    seen: int = 0
    hits: int = 0
    _random: random.Random = field(default_factory=random.Random, repr=False)

    @property
    def instead(self) -> bool:
        """Whether the request takes no effect."""
        return self.kind in _INSTEAD and not self.done

    def meets(self, method: str, path: str, key: str | None, tenant: str | None) -> bool:
        """Count a request that matches, and say whether it goes wrong."""
        if self.method not in ("*", method) or not fnmatch.fnmatchcase(path, self.path):
            return False
        if self.tenant not in (None, tenant):
            return False
        if self.key is not None and (key is None or not fnmatch.fnmatchcase(key, self.key)):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        if self.probability < 1.0 and self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True


_FIELDS = {name: item for name, item in Fault.__dataclass_fields__.items() if name not in ("_random", "seen", "hits")}
_TEXTS = ("method", "path", "key", "tenant", "code")
_NUMBERS = {
    "nth": (1, 1e9),
    "times": (1, 1e9),
    "probability": (0, 1),
    "status": (400, 599),
    "retry_after": (0, 1e9),
    "seconds": (0, 1e9),
    "keep": (0, 1),
    "shift": (-1e6, 1e6),
}


class Faults:
    """The rules in force, in order; the first that meets a request decides.

    Args:
        seed: What the probabilities are drawn from.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = 0
        self.rules: list[Fault] = []

    def add(self, data: Mapping[str, Any]) -> Fault:
        """Add a rule from JSON.

        Raises:
            ValueError: An unknown field or kind, or a value of the wrong sort.
        """
        if unknown := set(data) - set(_FIELDS):
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; a fault has {', '.join(sorted(_FIELDS))}")
        if data.get("kind") not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {data.get('kind')!r}")
        for name, (least, most) in _NUMBERS.items():
            value = data.get(name)
            if value is None and (name not in data or name in ("times", "retry_after")):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name} is a number from {least:g} to {most:g}, not {value!r}")
        if wrong := [name for name in _TEXTS if not isinstance(data.get(name), str | None)]:
            raise ValueError(f"{', '.join(wrong)} must be text")
        rule = Fault(**{**data, "method": str(data.get("method") or "*").upper(), "path": data.get("path") or "*"})
        rule._random = random.Random(f"{self._seed}/fault/{self._made}")  # noqa: SLF001 - made here
        self._made += 1
        self.rules.append(rule)
        return rule

    def meet(self, method: str, path: str, *, key: str | None, tenant: str | None) -> Fault | None:
        """Return what goes wrong with a request."""
        return self._meet(method, path, key, tenant, webhooks=False)

    def meet_webhook(self, url: str, tenant: str) -> Fault | None:
        """Return what goes wrong with a webhook."""
        return self._meet("POST", url, None, tenant, webhooks=True)

    def _meet(self, method: str, path: str, key: str | None, tenant: str | None, *, webhooks: bool) -> Fault | None:
        for rule in self.rules:
            if rule.kind.startswith("webhook_") == webhooks and rule.meets(method, path, key, tenant):
                return rule
        return None

    @property
    def ask_key(self) -> bool:
        """Whether a rule needs to know a request's idempotency key."""
        return any(rule.key is not None for rule in self.rules)


def as_json(rule: Fault) -> dict[str, Any]:
    """Return a rule with how often it has matched and happened."""
    return {name: value for name, value in asdict(rule).items() if name != "_random"}
