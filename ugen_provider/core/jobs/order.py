# SPDX-License-Identifier: Apache-2.0
"""Orders: the order's key, the request and its fingerprint, the user's choices, and the purchase that results.

Pure values. A fingerprint scheme never changes after its release: a new one gets the next number, and a known request
is compared under the scheme that it was recorded with, so that an upgrade buys nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ugen_provider.core.api.polling import EarlierState
from ugen_provider.core.api.profile import JobState
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.core.ledger.record import CURRENT_SCHEME, OnFinalFailure, OrderRecord

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job

_ROOT = uuid.UUID("6a4c7f0e-6f52-5b8e-9d63-2f1a5a0c9b41")


OrderKind = Literal["task", "partition", "product", "name"]


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One order: a task instance, an asset's partition, a product of a catalog, or a name in a script.

    Two order keys are the same order exactly if their text is the same. The namespace of the connection or resource
    comes first, so that staging and production never share an order.
    """

    namespace: str
    kind: OrderKind
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return json.dumps([self.namespace, self.kind, *self.parts], ensure_ascii=False, separators=(",", ":"))

    @property
    def label(self) -> str:
        """The order in words, for messages.

        Examples:
            >>> task_key(dag_id="shop", run_id="monday", task_id="videos", map_index=3).label
            'task videos[3] of DAG shop, run monday'
            >>> product_key(catalogue="shop", product_id="LL-1", namespace="staging").label
            "product LL-1 of catalog shop, namespace 'staging'"
        """
        match self.kind, self.parts:
            case "task", (dag_id, run_id, task_id, last):
                row = "" if last == "-1" else f"[{last.removeprefix('key:')}]"
                label = f"task {task_id}{row} of DAG {dag_id}, run {run_id}"
            case "partition", (asset, partition):
                label = f"asset {asset}" + (f", partition {partition}" if partition else "")
            case "product", (catalogue, product_id):
                label = f"product {product_id} of catalog {catalogue}"
            case "product", (catalogue, product_id, variant):
                label = f"product {product_id} ({variant}) of catalog {catalogue}"
            case _:
                label = f"order {' '.join(self.parts)!r}"
        return label + (f", namespace {self.namespace!r}" if self.namespace else "")

    @property
    def by_content(self) -> bool:
        """Whether a changed request is another order, as it is for products."""
        return self.kind == "product"

    def idempotency_key(self, purchase_number: int, *, fingerprint: str, regenerate: str | None = None) -> str:
        """Return the idempotency key of one purchase, a UUID. It never depends on the number of a try.

        Args:
            purchase_number: 0, plus one for each deliberate further purchase.
            fingerprint: Digest of the request; it counts for products alone.
            regenerate: The value by which another purchase was asked for, where no record counts purchases.

        Examples:
            >>> lamp = name_key("lamp")
            >>> lamp.idempotency_key(0, fingerprint="") == lamp.idempotency_key(0, fingerprint="other")
            True
        """
        parts: list[object] = [str(self), purchase_number]
        if self.by_content:
            parts.append(fingerprint)
        if regenerate is not None:
            parts.append(["regenerate", regenerate])
        return str(uuid.uuid5(_ROOT, json.dumps(parts, ensure_ascii=False, separators=(",", ":"))))


def task_key(
    *, dag_id: str, run_id: str, task_id: str, map_index: int = -1, scope_key: str | None = None, namespace: str = ""
) -> OrderKey:
    """Return the key of an Airflow task instance.

    Args:
        dag_id: The DAG.
        run_id: The run.
        task_id: The task, or the `order_key` in its place.
        map_index: The mapped instance; -1 for an unmapped task.
        scope_key: Identifies a mapped row in place of its index, which changes when rows are reordered.
        namespace: Of the connection.

    Examples:
        >>> str(task_key(dag_id="d", run_id="r", task_id="t"))
        '["","task","d","r","t","-1"]'
    """
    last = f"key:{scope_key}" if scope_key is not None else str(map_index)
    return OrderKey(namespace, "task", (dag_id, run_id, task_id, last))


def partition_key(*, asset: str, partition: str, namespace: str = "") -> OrderKey:
    """Return the key of a Dagster asset's partition; an unpartitioned asset has the partition ''."""
    return OrderKey(namespace, "partition", (asset, partition))


def product_key(*, catalogue: str, product_id: str, variant: str = "", namespace: str = "") -> OrderKey:
    """Return the key of a product of a catalog, from any entry point.

    Args:
        catalogue: The catalog.
        product_id: The shop's own id.
        variant: The product's look; one without a variant keeps the key that it always had.
        namespace: Of the connection.

    Examples:
        >>> str(product_key(catalogue="shop", product_id="LL-1"))
        '["","product","shop","LL-1"]'
        >>> str(product_key(catalogue="shop", product_id="LL-1", variant="wide"))
        '["","product","shop","LL-1","wide"]'
    """
    return OrderKey(namespace, "product", (catalogue, product_id, *([variant] if variant else [])))


def name_key(name: str, *, namespace: str = "") -> OrderKey:
    """Return the key of an order that a script names itself."""
    return OrderKey(namespace, "name", (name,))


_NO_PART = frozenset({"webhook_url", "idempotency_key", "stop_at_stage"})
_DEFAULTS_1: Mapping[str, Any] = {
    "video_model": "veo3_fast",
    "video_resolution": "standard",
    "aspect_ratio": "9:16",
    "segment_duration": 8,
    "interaction_mode": "holdable",
    "script_structure": "standard_5phase",
    "script_tone": "conversational",
    "captions_enabled": True,
    "caption_style": "tiktok_karaoke",
    "music_enabled": True,
    "music_volume": 0.15,
    "qai_enabled": True,
    "qai_mode": "lenient",
    "max_retries_keyframe": 1,
    "max_retries_video": 0,
    "human_review": "off",
    "human_review_max_rejections": 0,
    "human_review_budget": "accept_best",
    "failure_behavior": "accept_best",
}
_SIGNATURES_1 = frozenset(
    {
        "awsaccesskeyid",
        "expires",
        "googleaccessid",
        "key-pair-id",
        "policy",
        "se",
        "sig",
        "signature",
        "sip",
        "sks",
        "skoid",
        "skt",
        "sktid",
        "skv",
        "sp",
        "spr",
        "sr",
        "st",
        "sv",
        "token",
    }
)
_SIGNATURE_PREFIXES_1 = ("x-amz-", "x-goog-", "x-oss-")


def fingerprint(body: Mapping[str, Any], *, scheme: int = CURRENT_SCHEME, image_identity: str | None = None) -> str:
    """Return the digest of a create-job request.

    Fields equal to the service's default count as left out, and `webhook_url`, `idempotency_key` and `stop_at_stage`
    never count. The picture counts by its identity: its address without the parameters of a signature, or what
    `image_identity` says of it.

    Args:
        body: The request.
        scheme: The scheme's number.
        image_identity: For a picture that was uploaded for this request, the digest of its content.

    Raises:
        ValueError: This version does not know the scheme.

    Examples:
        >>> one = {"product_name": "Lamp", "product_image_url": "https://s.example/l.jpg?sig=a", "segment_count": 1}
        >>> two = {**one, "product_image_url": "https://s.example/l.jpg?sig=b", "aspect_ratio": "9:16"}
        >>> fingerprint(one) == fingerprint(two)
        True
    """
    digest = _SCHEMES.get(scheme)
    if digest is None:
        raise ValueError(f"fingerprint scheme {scheme} is unknown: a newer version of ugen-provider wrote it")
    return digest(body, image_identity)


def _scheme_1(body: Mapping[str, Any], image_identity: str | None) -> str:
    if image_identity is not None:
        body = {**body, "product_image_url": image_identity}
    parts = []
    for name, label in _labels_1(tuple(body)):
        value = body[name]
        if value is None or _DEFAULTS_1.get(name) == value:
            continue
        if name == "product_image_url" and image_identity is None and isinstance(value, str):
            value = _unsigned(value)
        # A million products are compared every night: their texts go around the general encoder.
        parts.append(label + (encode_basestring(value) if type(value) is str else _encoded(value)))
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode()).hexdigest()


@lru_cache(maxsize=256)
def _labels_1(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the fields that count, in the order in which they are digested, each with its beginning."""
    return tuple((name, encode_basestring(name) + ":") for name in sorted(names) if name not in _NO_PART)


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _encoded(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is list and all(type(item) is str for item in value):
        return f"[{','.join(map(encode_basestring, value))}]"
    return _ENCODER.encode(value)


def _unsigned(address: str) -> str:
    if "?" not in address:
        return address
    parts = urlsplit(address)
    kept = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in _SIGNATURES_1 and not name.lower().startswith(_SIGNATURE_PREFIXES_1)
    ]
    return urlunsplit(parts._replace(query=urlencode(kept)))


_SCHEMES: Mapping[int, Callable[[Mapping[str, Any], str | None], str]] = {1: _scheme_1}


@dataclass(frozen=True, slots=True)
class Order:
    """A request for one video, and the choices that decide what an earlier attempt's job means for it.

    Attributes:
        key: The order's identity.
        body: The request, without `idempotency_key`.
        policy: The user's choices.
        attempt: Name of this attempt: an Airflow task instance id, a Dagster run id with its step retry number, or a
            UUID of the process. Attempts are ordered by the tokens that they take, not by their names.
        origin: Scheme, host and port of the API; see `origin_of`.
        image_identity: For an uploaded picture, the digest of its content.
        scheme: Number of the fingerprint scheme; a ledger pins it for each catalog.
        digest: The request's fingerprint, where a feed's `ignore_changes` leaves fields out of it; None computes it.
        search_since: Seconds since the epoch from which on a purchase of an earlier, lost record may exist. Where it
            is set, an order without a record is searched by its key before its first POST.
        cancel_on_kill: Whether the end of the attempt by a person cancels the job; for the record.
        on_final_failure: What happens to a job that runs on after its task failed for good; for the record.
        destination: Where the outputs are wanted; for the record.
        outputs: Which outputs are wanted; for the record.
        code_location: Dagster's code location that orders it; for the record.
    """

    key: OrderKey
    body: Mapping[str, Any] = field(repr=False)
    policy: PurchasePolicy = field(default_factory=PurchasePolicy)
    attempt: str = ""
    origin: str = ""
    image_identity: str | None = None
    scheme: int = CURRENT_SCHEME
    digest: str | None = None
    search_since: float | None = None
    cancel_on_kill: bool = False
    on_final_failure: OnFinalFailure = "collect"
    destination: str | None = None
    outputs: tuple[str, ...] = ()
    code_location: str | None = None

    @property
    def label(self) -> str:
        """The order in words, for messages."""
        return self.key.label

    @property
    def record_key(self) -> str:
        """The key of the order's record: for a product with the fingerprint, at an emulator with its address."""
        digest = self.fingerprint() if self.key.by_content else ""
        return record_key(self.key, fingerprint=digest, origin=self.origin)

    def fingerprint(self, *, scheme: int | None = None) -> str:
        """Return the digest of the request as it is now."""
        if self.digest is not None and scheme in {None, self.scheme}:
            return self.digest
        return fingerprint(self.body, scheme=scheme or self.scheme, image_identity=self.image_identity)

    def record(self, *, purchase_number: int, written_at: float, regenerate: str | None = None) -> OrderRecord:
        """The record of one purchase before its request is sent.

        Args:
            purchase_number: Which purchase of the order.
            written_at: Seconds since the epoch.
            regenerate: A value that goes into the key, where no record counts purchases.
        """
        digest = self.fingerprint()
        key = self.key.idempotency_key(purchase_number, fingerprint=digest, regenerate=regenerate)
        return OrderRecord(
            order_key=self.record_key,
            purchase_number=purchase_number,
            key=key,
            body={**self.body, "idempotency_key": key},
            fingerprint=digest,
            scheme=self.scheme,
            written_at=written_at,
            origin=self.origin,
            attempt=self.attempt,
            cancel_on_kill=self.cancel_on_kill,
            on_final_failure=self.on_final_failure,
            destination=self.destination,
            outputs=self.outputs,
            code_location=self.code_location,
        )


def record_key(key: OrderKey, *, fingerprint: str = "", origin: str = "") -> str:
    """Return the text under which an order's record is stored.

    Records of an emulator on this machine are kept apart from those of the service, and from those of an emulator at
    another port: none of them may ever pass for another.

    Args:
        key: The order.
        fingerprint: For products, the digest of the request; a changed product is another order.
        origin: Of the API.

    Examples:
        >>> record_key(name_key("lamp"), origin="http://localhost:8000")
        '["","name","lamp"]@loopback:8000'
        >>> record_key(name_key("lamp"), origin="https://api.u-gen.ai")
        '["","name","lamp"]'
    """
    return f"{key}{fingerprint}{_emulator_suffix(origin) if origin else ''}"


@lru_cache(maxsize=64)
def _emulator_suffix(origin: str) -> str:
    return f"@{origin_of(origin)}" if is_loopback(origin) else ""


def parse_record_key(text: str) -> OrderKey | None:
    """Return the order that a record's key names; None for a record that is about no order, such as a retry.

    Examples:
        >>> parse_record_key('["","product","shop","LL-1"]4f2a@loopback:8000')
        OrderKey(namespace='', kind='product', parts=('shop', 'LL-1'))
    """
    try:
        (namespace, kind, *parts), _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    return OrderKey(namespace, kind, tuple(parts)) if kind in get_args(OrderKind) else None


def origin_of(address: str) -> str:
    """Return scheme, host and port of an address; all names of this machine count as one.

    Examples:
        >>> origin_of("https://API.u-gen.ai/api/v1"), origin_of("http://127.0.0.1:8000/api/v1")
        ('https://api.u-gen.ai', 'loopback:8000')
    """
    if address.startswith("loopback"):
        return address
    parts = urlsplit(address)
    host = (parts.hostname or "").lower()
    port = f":{parts.port}" if parts.port else ""
    return f"loopback{port}" if _is_this_machine(host) else f"{parts.scheme}://{host}{port}"


def is_loopback(address: str) -> bool:
    """Return whether an address leads to this machine, as an emulator's does."""
    return address.startswith("loopback") or _is_this_machine((urlsplit(address).hostname or "").lower())


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class PurchaseOutcome(Enum):
    """How an attempt came to its job.

    `RECOVERED`: the service had the job under this order's key, complete, and it was made before the order's record
    was, as after a ledger was lost. Nothing was paid.
    """

    CREATED = "created"
    REATTACHED = "reattached"
    REUSED = "reused"
    RECOVERED = "recovered"
    ADOPTED = "adopted"
    RESUMED = "resumed"
    AWAITING_APPROVAL = "awaiting_approval"
    STAGE_RETRIED = "stage_retried"

    @classmethod
    def of_answer(cls, job: Job, *, first_send: bool, age: float) -> PurchaseOutcome:
        """Return the outcome of a POST.

        A job that took longer than its order is old existed before. That it is complete does not prove this: the answer
        may have been lost, and the request sent again once the job had ended. Each of the two is a difference of one
        clock, so that the service's need not agree with ours.

        Args:
            job: The answer.
            first_send: Whether this attempt recorded the purchase.
            age: Seconds since it was recorded.
        """
        if not first_send or job.state is not JobState.COMPLETED or job.created_at is None or job.completed_at is None:
            return cls.CREATED
        return cls.RECOVERED if (job.completed_at - job.created_at).total_seconds() > age else cls.CREATED


@dataclass(frozen=True, slots=True)
class Purchase:
    """The job of an order, as last read.

    Attributes:
        job: The job; it may have ended.
        record: The order's record.
        outcome: How the attempt came to the job.
        request_changed: Whether the request is another one now than the one that the job was made from.
        warnings: Sentences for a person.
        stale: A state that does not count while waiting, after a retry or a resume.
    """

    job: Job
    record: OrderRecord
    outcome: PurchaseOutcome
    request_changed: bool = False
    warnings: tuple[str, ...] = ()
    stale: EarlierState | None = None
