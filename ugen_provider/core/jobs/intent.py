# SPDX-License-Identifier: Apache-2.0
"""What is written down before money is spent, and where it is kept.

Each door brings its own store: Airflow the task state store, Dagster the event log, feeds the ledger. For plain Python
there is one in memory and one in files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from ugen_provider.core.api.effects import Flow, Perform
from ugen_provider.core.api.polling import Seen

CancelReason = Literal["kill", "timeout", "rejected", "expired", "over_max_credits", "operator", "cli", "regenerate"]
PauseReason = Literal["interrupt", "gate"]


@dataclass(frozen=True, slots=True)
class OurAction:
    """The last thing that we did, or were about to do, to the job; written before the call.

    Args:
        kind: `cancel` or `pause`.
        reason: Why.
        at: Seconds since the epoch.
        confirmed: Whether the service was seen to have done it.
    """

    kind: Literal["cancel", "pause"]
    reason: str
    at: float
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class PendingRetry:
    """A stage retry that was about to be sent: how the job looked, and how often credits had been reserved for it."""

    seen: Seen
    reserves: int | None


@dataclass(frozen=True, slots=True)
class Intent:
    """One generation of one order.

    Attributes:
        scope: The order, as text.
        generation: 0, and one more each time that it was deliberately bought again.
        key: The idempotency key.
        body: The request exactly as it is sent, key included.
        fingerprint: Its digest.
        scheme: The digest's scheme.
        written_at: Seconds since the epoch.
        refused: Whether every send so far was definitely refused; False before the first.
        job_id: Known once an answer arrived.
        stage_retries: Stage retries asked for, over all attempts.
        pending_retry: A stage retry whose outcome is not known yet.
        regenerate: Values of `regenerate` that were honoured.
        action: Our last action on the job.
        holder: Who works on it: a run id, a try; for the fence and for reports.
        earlier: Job ids of earlier generations, in order; '' where none was known.
        armed: Whether somebody who cannot write here may cancel the job on a kill, as Airflow's triggerer. Set before
            the job is handed over, taken back by whoever comes back from it; so a cancelled job whose intent is still
            armed was cancelled by us.
    """

    scope: str
    generation: int
    key: str
    body: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    scheme: int
    written_at: float
    refused: bool = False
    job_id: str | None = None
    stage_retries: int = 0
    pending_retry: PendingRetry | None = None
    regenerate: tuple[str, ...] = ()
    action: OurAction | None = None
    holder: str = ""
    earlier: tuple[str, ...] = ()
    armed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for any store."""
        made = asdict(replace(self, body={}))
        return {**made, "body": dict(self.body), "regenerate": list(self.regenerate), "earlier": list(self.earlier)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made. Entries that a newer version added are passed over.

        Raises:
            ValueError: It is no intent.
        """
        try:
            known = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
            known["regenerate"] = tuple(known.get("regenerate", ()))
            known["earlier"] = tuple(known.get("earlier", ()))
            if (action := known.get("action")) is not None:
                known["action"] = OurAction(**action)
            if (pending := known.get("pending_retry")) is not None:
                known["pending_retry"] = PendingRetry(Seen(**pending["seen"]), pending["reserves"])
            return cls(**known)
        except (TypeError, KeyError) as error:
            raise ValueError(f"the stored intent cannot be read: {error}") from None


class IntentStore(Protocol):
    """Where intents are kept. Methods may block; async doors call them in a thread."""

    @property
    def durable(self) -> bool:
        """Whether what was written can be read after this process is gone; else the key alone protects."""
        ...

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope."""
        ...

    def write(self, intent: Intent) -> None:
        """Keep an intent; when this returns, a crash does not lose it."""
        ...


def write_down(store: IntentStore, intent: Intent) -> Flow[None]:
    """Keep an intent, as a step of a flow."""
    yield Perform("intent.write", lambda: store.write(intent))


class MemoryIntentStore:
    """Keeps intents while the process lives: for tests, and for scripts that buy once."""

    durable = True

    def __init__(self) -> None:
        self._intents: dict[str, Intent] = {}

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope."""
        return self._intents.get(scope)

    def write(self, intent: Intent) -> None:
        """Keep an intent."""
        self._intents[intent.scope] = intent


class NoIntentStore:
    """Keeps nothing, as Airflow below 3.3: the key alone protects, as long as the service remembers keys."""

    durable = False

    def read(self, scope: str) -> Intent | None:  # noqa: ARG002
        """Nothing."""
        return None

    def write(self, intent: Intent) -> None:
        """Keep nothing."""


class FileIntentStore:
    """Keeps each scope in a JSON file of a folder, replaced as a whole, so that a crash leaves the old or the new.

    Args:
        folder: Made where it is missing. It holds request bodies, with their picture addresses, and no key.

    Examples:
        >>> store = FileIntentStore(tmp_path / "intents")
        >>> store.read("nothing yet") is None
        True
    """

    durable = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def _path(self, scope: str) -> Path:
        return self._folder / f"{hashlib.sha256(scope.encode()).hexdigest()[:32]}.json"

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope."""
        try:
            text = self._path(scope).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Intent.from_dict(json.loads(text))

    def write(self, intent: Intent) -> None:
        """Keep an intent."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(intent.scope)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(intent.to_dict(), file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
