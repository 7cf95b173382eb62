# SPDX-License-Identifier: Apache-2.0
"""The record of an order, stored before money is spent, its signature, and the interface of the stores that keep it.

A store may be the ledger, Airflow's task state store, or none at all (`KeyOnlyStore`). Imports no SQLAlchemy.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, Self

from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.polling import EarlierState

CURRENT_MAPPING_VERSION = 1
"""Of the default feed mapping."""

CURRENT_SCHEME = 1
"""Of the request fingerprint."""


ActionKind = Literal["cancel", "pause", "collect"]
ActionState = Literal["recorded", "sent", "confirmed", "withdrawn"]
CancelReason = Literal[
    "kill",
    "run_end",
    "terminate",
    "timeout",
    "rejected",
    "expired",
    "over_max_credits",
    "operator",
    "cli",
    "regenerate",
]
PauseReason = Literal["interrupt", "gate"]
OnFinalFailure = Literal["collect", "cancel"]

ENDS_ATTEMPT = frozenset({"kill", "run_end", "terminate"})
"""Reasons of a cancel that also end the attempt whose token the action carries."""


@dataclass(frozen=True, slots=True)
class Action:
    """A cancel, a pause or a collection of one job's outputs, recorded before it is done.

    Actions are appended and never rewritten by an attempt: an action names the order, the purchase and the job that it
    is about, so it can never apply to another one.

    Attributes:
        order_key: The order.
        purchase_number: The purchase.
        job_id: The job; None while its id is not known yet.
        kind: `cancel`, `pause`, or `collect` (store the outputs of a job whose task failed for good).
        reason: Why.
        token: Token of the attempt that the event ended, or that acted.
        at: Seconds since the epoch.
        state: `recorded`, `sent` (the request may have reached the service), `confirmed` or `withdrawn`.
        action_id: Given by the store; '' before.
        expires_at: When a pause at a gate expires, in seconds since the epoch; None if it does not.
    """

    order_key: str
    purchase_number: int
    job_id: str | None
    kind: ActionKind
    reason: str
    token: int
    at: float
    state: ActionState = "recorded"
    action_id: str = ""
    expires_at: float | None = None

    def concerns(self, record: OrderRecord) -> bool:
        """Return whether the action is about this record's present purchase and job."""
        same_job = self.job_id is None or record.job_id is None or self.job_id == record.job_id
        return self.order_key == record.order_key and self.purchase_number == record.purchase_number and same_job

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON types, for any store."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made.

        Raises:
            ValueError: It is no action.
        """
        try:
            return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})
        except TypeError as error:
            raise ValueError(f"the stored action cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class PendingRetry:
    """A retry or resume that was about to be sent: the job's state before it, and its number of reservations."""

    seen: EarlierState
    reserves: int | None


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """The state of one order, on disk before each request that can cost money.

    Attributes:
        order_key: The order, as text.
        purchase_number: 0, plus one for each deliberate further purchase.
        key: The idempotency key of this purchase.
        body: The request exactly as it is sent, key included.
        fingerprint: Digest of the request; '' where the request behind the job is not known.
        scheme: Number of the fingerprint scheme.
        written_at: When this purchase was first recorded, in seconds since the epoch.
        origin: Scheme, host and port of the API that the purchase was made at.
        sent_at: When the request was last sent; None before the first time.
        maybe_bought: Whether any send may have bought: it is set before each send, and cleared only by a refusal of
            that send where no earlier one was unanswered.
        refusals: How many sends were refused.
        content_refusals: How many of them were a 400, 402 or 422 in the service's own error form.
        job_id: Known once an answer arrived.
        missing_since: When the service first answered 404 for the job.
        deleted: Whether a person settled that the job was deleted.
        stage_retries: Stage retries asked for, over all attempts.
        pending_retry: A stage retry whose outcome is not known yet.
        regenerate: Values of `regenerate` that were honoured.
        earlier: Job ids of earlier purchases, in order; '' where none was known.
        token: The newest token; 0 before the record is stored.
        attempt: Name of the attempt that holds it.
        armed_token: Token of a waiting attempt whose job another process may cancel without access to this store (an
            Airflow triggerer); None while no attempt waits. A cancelled job of an armed record was cancelled by us.
        cancel_on_kill: Whether the end of the attempt by a person cancels the job.
        on_final_failure: What happens to a job that runs on after its task failed for good.
        destination: Where the outputs are wanted; None leaves them with the service.
        outputs: Which outputs are wanted.
        code_location: Dagster's code location that ordered it, for the guard against renamed assets; None for an order
            that the guard leaves out.
    """

    order_key: str
    purchase_number: int
    key: str
    body: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    scheme: int
    written_at: float
    origin: str = ""
    sent_at: float | None = None
    maybe_bought: bool = False
    refusals: int = 0
    content_refusals: int = 0
    job_id: str | None = None
    missing_since: float | None = None
    deleted: bool = False
    stage_retries: int = 0
    pending_retry: PendingRetry | None = None
    regenerate: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    token: int = 0
    attempt: str = ""
    armed_token: int | None = None
    cancel_on_kill: bool = False
    on_final_failure: OnFinalFailure = "collect"
    destination: str | None = None
    outputs: tuple[str, ...] = ()
    code_location: str | None = None

    @property
    def surely_not_bought(self) -> bool:
        """Whether every send so far was refused, so that the request may be sent as it is now."""
        return self.job_id is None and not self.maybe_bought

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON types, for any store."""
        made = asdict(replace(self, body={}))
        lists = {"regenerate": list(self.regenerate), "earlier": list(self.earlier), "outputs": list(self.outputs)}
        return {**made, "body": dict(self.body), **lists}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made. Entries of a newer version are ignored.

        Raises:
            ValueError: It is no order record.
        """
        try:
            known = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
            for name in ("regenerate", "earlier", "outputs"):
                known[name] = tuple(known.get(name) or ())
            if (pending := known.get("pending_retry")) is not None:
                known["pending_retry"] = PendingRetry(EarlierState(**pending["seen"]), pending["reserves"])
            return cls(**known)
        except (TypeError, KeyError) as error:
            raise ValueError(f"the stored order record cannot be read: {error}") from None


class OrderStore(Protocol):
    """Keeps order records and actions. Methods may block; event loops call them in a thread.

    Every method that changes something returns after the change is on disk.
    """

    @property
    def durable(self) -> bool:
        """Whether a record outlives this process; otherwise the idempotency key alone protects."""
        ...

    def read(self, order_key: str) -> OrderRecord | None:
        """Return the record of an order; None where there is none."""
        ...

    def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Make an attempt the newest one of an order that has a record, in one conditional write.

        The attempt that holds the newest token already keeps it.

        Raises:
            AttemptSupersededError: The attempt held a token before, and a newer attempt has begun since.
        """
        ...

    def write(self, record: OrderRecord) -> OrderRecord:
        """Store a record for the attempt that it names, and return it as stored.

        A record with token 0 is new: it is inserted with token 1. Any other is replaced only while its token is the
        newest.

        Raises:
            AttemptSupersededError: A newer attempt has begun; nothing was written.
        """
        ...

    def record_job_id(self, record: OrderRecord, job_id: str) -> OrderRecord:
        """Store the answer of a request that was sent already; an attempt that is not the newest may do this."""
        ...

    def actions(self, order_key: str) -> tuple[Action, ...]:
        """Return the actions of an order, oldest first, each with its newest state."""
        ...

    def append_action(self, action: Action) -> Action:
        """Store a new action and return it with its id."""
        ...

    def mark_action(self, action: Action, state: ActionState) -> None:
        """Append the new state of an action."""
        ...


class KeyOnlyStore:
    """Keeps nothing, as Airflow below 3.3 without a ledger: the idempotency key alone protects."""

    durable = False

    def read(self, order_key: str) -> OrderRecord | None:  # noqa: ARG002
        """Return None: nothing is kept."""
        return None

    def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Refuse a token, since there is no record to take it from."""
        raise LookupError(f"order {order_key}: no record is kept, so attempt {attempt!r} can take no token")

    def write(self, record: OrderRecord) -> OrderRecord:
        """Return the record unchanged, since there is no store."""
        return record

    def record_job_id(self, record: OrderRecord, job_id: str) -> OrderRecord:
        """Return the record with the job id."""
        return replace(record, job_id=job_id, maybe_bought=True)

    def actions(self, order_key: str) -> tuple[Action, ...]:  # noqa: ARG002
        """Return nothing: without a store there are no actions."""
        return ()

    def append_action(self, action: Action) -> Action:
        """Return the action unchanged, since there is no store."""
        return action

    def mark_action(self, action: Action, state: ActionState) -> None:
        """Keep nothing: without a store there are no actions."""


_SEPARATOR = "\x1f"
"""No id of a product can hold it: `normalized_id` refuses control characters."""


def row_id(product_id: str, variant: str = "") -> str:
    r"""Return the name of a product's row in one variant.

    Examples:
        >>> row_id("LL-1"), row_id("LL-1", "wide")
        ('LL-1', 'LL-1\x1fwide')
    """
    return f"{product_id}{_SEPARATOR}{variant}" if variant else product_id


def split_row_id(name: str) -> tuple[str, str]:
    """Return the product's id and its variant, '' for none.

    Examples:
        >>> split_row_id(row_id("LL-1", "wide")), split_row_id("LL-1")
        (('LL-1', 'wide'), ('LL-1', ''))
    """
    product_id, _, variant = name.partition(_SEPARATOR)
    return product_id, variant


def shown_id(name: str) -> str:
    """Return a row's name for a person.

    Examples:
        >>> shown_id(row_id("LL-1", "wide")), shown_id("LL-1")
        ('LL-1 (wide)', 'LL-1')
    """
    product_id, variant = split_row_id(name)
    return f"{product_id} ({variant})" if variant else product_id


def variant_pattern(variant: str) -> str:
    r"""Return the pattern for SQL's LIKE of the rows of one variant, escaped by a backslash.

    Examples:
        >>> variant_pattern("wide_1")
        '%\x1fwide\\_1'
    """
    return f"%{_SEPARATOR}" + variant.replace("_", "\\_")


@dataclass(frozen=True, slots=True)
class RecordSigner:
    """Signs text with the newest secret and verifies text of earlier ones, so that a rotation takes nothing away.

    Attributes:
        secret: The connection's `record_secret`, or else derived from its API key.
        previous: Secrets that still verify.

    Examples:
        >>> signer = RecordSigner(Secret("new"), previous=(Secret("old"),))
        >>> signer.verifies("text", RecordSigner(Secret("old")).sign("text"))
        True
        >>> signer.verifies("other text", RecordSigner(Secret("old")).sign("text"))
        False
    """

    secret: Secret
    previous: Sequence[Secret] = field(default=())

    def sign(self, text: str) -> str:
        """Return the signature `KEY_ID:HMAC`, both parts hexadecimal."""
        return f"{_key_id(self.secret)}:{_mac(self.secret, text)}"

    def verifies(self, text: str, signature: str | None) -> bool:
        """Return whether one of the secrets made this signature of the text."""
        key_id, _, mac = (signature or "").partition(":")
        for secret in (self.secret, *self.previous):
            if hmac.compare_digest(key_id, _key_id(secret)):
                return hmac.compare_digest(mac, _mac(secret, text))
        return False


def _key_id(secret: Secret) -> str:
    return hashlib.sha256(b"ugen record key id\0" + secret.reveal().encode()).hexdigest()[:12]


def _mac(secret: Secret, text: str) -> str:
    key = hashlib.sha256(b"ugen record key\0" + secret.reveal().encode()).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
