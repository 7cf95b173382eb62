# SPDX-License-Identifier: Apache-2.0
"""Webhook deliveries: what is sent when, signed how, and how each attempt went. Sending itself is not done here."""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.faults import Faults
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.store import RecordStore


def seal(secret: str, *, seed: int) -> str:
    """Return a secret in its stored form."""
    return _mixed(secret.encode(), seed).hex()


def unseal(stored: str, *, seed: int) -> str:
    """Return a secret that was stored."""
    return _mixed(bytes.fromhex(stored), seed).decode()


def _mixed(content: bytes, seed: int) -> bytes:
    stream = hashlib.shake_256(f"ugen-emulator/{seed}".encode()).digest(len(content))
    return bytes(left ^ right for left, right in zip(content, stream, strict=True))


RETRY_AFTER = (1.0, 4.0, 16.0)
ANSWER_WITHIN = 10.0
PENDING, DELIVERED, DROPPED = "pending", "delivered", "dropped"


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One event on its way to one URL.

    Attributes:
        id: Its number as text.
        number: Counts up.
        tenant: Whose event.
        job_id: Which job's.
        event: `job.completed` or `job.failed`.
        url: Where to.
        body: What, exactly as it is sent.
        created_at: When it happened.
        due: When it is sent next; `None` when nothing more is sent.
        state: `pending`, `delivered` or `dropped`.
        fault: What goes wrong with it on purpose.
        attempts: Each with `at` and `status` or `error`.
        stamped: Time in the signature of the first attempt.
    """

    id: str
    number: int
    tenant: str
    job_id: str
    event: str
    url: str
    body: str
    created_at: float
    due: float | None
    state: str = PENDING
    fault: str | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    stamped: float | None = None
    secret: str | None = field(default=None, repr=False)
    in_flight: bool = False


class Webhooks:
    """The webhook settings of tenants and everything that goes out.

    Args:
        store: Where both are kept.
        seed: What secrets are sealed with.
        readings: Form of signatures and stamps.
        faults: What goes wrong on purpose.
    """

    def __init__(self, store: RecordStore, *, seed: int, readings: Callable[[], Readings], faults: Faults) -> None:
        self._store = store
        self._seed = seed
        self._readings = readings
        self._faults = faults
        self.hooks: dict[str, tuple[str, str | None]] = {}
        for tenant, _, data in store.load("webhook"):
            self.hooks[tenant] = (data["url"], self._opened(data["secret"]))
        self.deliveries: dict[str, Delivery] = {}
        self._open: dict[str, Delivery] = {}
        for _, _, data in store.load("delivery"):
            self._keep(Delivery(**{**data, "secret": self._opened(data["secret"])}))

    def configure(self, tenant: str, url: str, secret: str | None) -> None:
        """Set a tenant's webhook over what it was."""
        self.hooks[tenant] = (url, secret)
        self._store.put("webhook", tenant, 0, {"url": url, "secret": self._closed(secret)})

    def forget(self, tenant: str) -> None:
        """Clear a tenant's webhook; deliveries on their way continue."""
        if self.hooks.pop(tenant, None) is not None:
            self._store.remove("webhook", tenant)

    def announce(self, tenant: str, job_id: str, job_url: str | None, event: Mapping[str, Any], at: float) -> None:
        """Queue an event for the job's own URL, else the tenant's; without either nothing is sent."""
        hook = self.hooks.get(tenant)
        url = job_url or (hook[0] if hook else None)
        if url is None:
            return
        secret = hook[1] if hook else None
        if job_url is not None and self._readings().webhook_signer == "unsigned":
            secret = None
        body = json.dumps({**event, "timestamp": iso(at, form="seconds")}, separators=(",", ":"))
        fault = self._faults.meet_webhook(url, tenant)
        kind = fault.kind if fault else None
        due = at + (fault.seconds if fault and kind == "webhook_late" else 0.0)
        for _ in range(2 if kind == "webhook_twice" else 1):
            number = len(self.deliveries)
            self._keep(
                Delivery(
                    id=str(number),
                    number=number,
                    tenant=tenant,
                    job_id=job_id,
                    event=str(event["event"]),
                    url=url,
                    body=body,
                    created_at=at,
                    due=None if kind == "webhook_lost" else due,
                    state=DROPPED if kind == "webhook_lost" else PENDING,
                    fault=kind,
                    secret=secret,
                )
            )
            self._write(self.deliveries[str(number)])

    def next_due(self) -> float | None:
        """Return when the next delivery is to be sent."""
        return min(
            (item.due for item in self._open.values() if item.due is not None and not item.in_flight), default=None
        )

    def take_due(self, now: float, *, most: int) -> list[Delivery]:
        """Return the deliveries to send now, in order; each is in flight until it is `answered`.

        Args:
            now: The time.
            most: How many may be in flight at once.
        """
        free = most - sum(item.in_flight for item in self._open.values())
        due = [item for item in self._open.values() if item.due is not None and item.due <= now and not item.in_flight]
        due.sort(key=lambda item: (item.due or 0.0, item.number))
        taken = due[: max(0, free)]
        for item in taken:
            item.in_flight = True
        return taken

    def headers(self, delivery: Delivery, stamp: float) -> dict[str, str]:
        """Return the headers of an attempt: signed if there is a secret.

        Args:
            delivery: What is sent.
            stamp: Time to sign with.
        """
        readings = self._readings()
        if delivery.stamped is None:
            delivery.stamped = stamp
        if readings.webhook_stamp == "first":
            stamp = delivery.stamped
        if delivery.fault == "webhook_stale":
            stamp -= 3600
        headers = {"content-type": "application/json", "user-agent": "U-Gen-Webhooks/1.0"}
        if delivery.secret is None:
            return headers
        text = {
            "seconds": str(int(stamp)),
            "millis": str(int(stamp * 1000)),
            "iso": iso(stamp, form="seconds"),
        }[readings.webhook_timestamp]
        secret = "not the secret" if delivery.fault == "webhook_forged" else delivery.secret
        signature = hmac.new(secret.encode(), f"{text}.{delivery.body}".encode(), hashlib.sha256).hexdigest()
        prefix = "sha256=" if readings.webhook_signature == "sha256=" else ""
        return {**headers, "x-ugen-timestamp": text, "x-ugen-signature": prefix + signature}

    def answered(self, delivery: Delivery, *, status: int | None, error: str | None, took: float) -> None:
        """Note how an attempt went: any 2xx ends the delivery, else it is sent again after 1, 4 and 16 s.

        Args:
            delivery: Which.
            status: What the receiver answered.
            error: Why there was no answer.
            took: Seconds of the emulator's clock from sending to the answer.
        """
        begun = delivery.due if delivery.due is not None else delivery.created_at
        delivery.in_flight = False
        delivery.attempts.append({"at": begun, "status": status, "error": error})
        tries = len(delivery.attempts)
        if status is not None and 200 <= status < 300:
            delivery.state, delivery.due = DELIVERED, None
        elif tries <= len(RETRY_AFTER):
            delivery.due = begun + took + RETRY_AFTER[tries - 1]
        else:
            delivery.state, delivery.due = DROPPED, None
        if delivery.due is None:
            self._open.pop(delivery.id, None)
        self._write(delivery)

    def redeliver(self, delivery: Delivery, now: float) -> Delivery:
        """Send an event once more, as a delivery of its own; returns that."""
        number = len(self.deliveries)
        again = Delivery(
            id=str(number),
            number=number,
            tenant=delivery.tenant,
            job_id=delivery.job_id,
            event=delivery.event,
            url=delivery.url,
            body=delivery.body,
            created_at=now,
            due=now,
            secret=delivery.secret,
        )
        self._keep(again)
        self._write(again)
        return again

    def _keep(self, delivery: Delivery) -> None:
        self.deliveries[delivery.id] = delivery
        if delivery.due is not None:
            self._open[delivery.id] = delivery

    def _write(self, delivery: Delivery) -> None:
        record = {**asdict(delivery), "secret": self._closed(delivery.secret), "in_flight": False}
        self._store.put("delivery", delivery.id, delivery.number, record)

    def _closed(self, secret: str | None) -> str | None:
        return None if secret is None else seal(secret, seed=self._seed)

    def _opened(self, stored: str | None) -> str | None:
        return None if stored is None else unseal(stored, seed=self._seed)


def as_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as the log shows it, without its secret."""
    return {
        name: value
        for name, value in asdict(delivery).items()
        if name not in ("secret", "in_flight", "stamped", "number")
    } | {"signed": delivery.secret is not None}


def may_be_called(url: str, *, anywhere: bool) -> bool:
    """Return whether a webhook may go to a URL: https, or plain http to loopback, or plain http if allowed."""
    parts = urlsplit(url)
    if parts.scheme == "https" or anywhere:
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
