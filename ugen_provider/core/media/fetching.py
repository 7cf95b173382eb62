# SPDX-License-Identifier: Apache-2.0
"""One link becomes one whole, checked file on local disk, or an error; never something in between."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.media.content import Family, is_whole, media_type_of, promised_family
from ugen_provider.core.media.errors import DownloadError, Reason
from ugen_provider.core.media.manifest import without_query

if TYPE_CHECKING:
    from ugen_provider.core.api._streams import ByteStream, StreamClient
    from ugen_provider.core.api._wires import Admit

_EXPIRED = frozenset({403, 404, 410})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes ([0-9]{1,20})-[0-9]{1,20}/([0-9]{1,20})")
_PROGRESS = 1 << 20
_BUFFER = 1 << 20
MAX_BYTES = 4 << 30
"""Bytes above which a file is refused where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """How far a fetch goes.

    Attributes:
        max_bytes: A larger file is refused.
        attempts: Attempts in a row that bring nothing new; one that brought 1 MiB starts the count again.
        deadline: Seconds for one file in all.
        allow_private: Whether links may lead to loopback and private addresses, as those of a local U-Gen do.
        redirects: Redirects that are followed, each checked like the first link.
    """

    max_bytes: int = MAX_BYTES
    attempts: int = 5
    deadline: float = 3600.0
    allow_private: bool = False
    redirects: int = 5


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched."""

    size: int
    sha256: str
    media_type: str
    source: str


@dataclass(slots=True)
class _Part:
    """What is on disk so far, with what a resumption must match."""

    path: Path
    tell: Callable[[int, int | None], None]
    buffer: memoryview
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    validator: str | None = None
    total: int | None = None

    def restart(self) -> None:
        self.path.touch()
        if self.path.stat().st_size:  # ext4 writes out at once what was cut to nothing before it
            os.truncate(self.path, 0)
        self.size, self.digest, self.validator, self.total = 0, hashlib.sha256(), None, None


class Fetcher:
    """Fetches links to local disk.

    Args:
        client: What reads the links; it holds no key.
        policy: How far to go.
        sleep: How to wait between attempts.
        tick: A clock that is never set back.
    """

    def __init__(
        self,
        client: StreamClient,
        policy: FetchPolicy,
        *,
        sleep: Callable[[float], None] = time.sleep,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._policy = policy
        self._sleep = sleep
        self._tick = tick
        self._of_thread = threading.local()

    def fetch(
        self,
        url: str,
        path: Path,
        *,
        family: Family,
        renew: Callable[[str], str | None],
        tell: Callable[[int, int | None], None] = lambda size, total: None,  # noqa: ARG005
    ) -> Fetched:
        """Fetch one link.

        Args:
            url: Where it is.
            path: Where to; left half-written on an error.
            family: What it must be.
            renew: Gives a fresh link for one that has expired, None where there is none.
            tell: Told how many bytes have come, and of how many where the server says that.

        Raises:
            DownloadError: It could not be fetched whole, or is not what was promised.
        """
        part = _Part(path, tell, self._buffer())
        part.restart()
        until = self._tick() + self._policy.deadline
        failures = 0
        renewed = False
        while True:
            before = part.size
            try:
                outcome = self._attempt(url, part, family, until=until)
            except TransportError as error:
                outcome = str(error)
            if isinstance(outcome, Fetched):
                return outcome
            if outcome in _EXPIRED:
                fresh = None if renewed else renew(url)
                renewed = True
                if not fresh:
                    raise _error(f"the link answers {outcome}, and the service gives no fresh one", "expired", url)
                url = fresh
                continue
            failures = 0 if part.size - before >= _PROGRESS else failures + 1
            if failures >= self._policy.attempts or self._tick() > until:
                raise _error(f"could not be fetched in {failures} attempts, at last: {outcome}", "network", url)
            self._sleep(random.uniform(0.5, 1.0) * min(8.0, 0.25 * 2.0**failures))  # noqa: S311  jitter, no secret

    def _buffer(self) -> memoryview:
        """What this thread receives into, from file to file."""
        if not hasattr(self._of_thread, "buffer"):
            self._of_thread.buffer = memoryview(bytearray(_BUFFER))
        buffer: memoryview = self._of_thread.buffer
        return buffer

    def _attempt(self, url: str, part: _Part, family: Family, *, until: float) -> Fetched | int | str:
        headers: dict[str, str] = {}
        if part.size and part.validator:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        with self._following(url, headers) as stream:
            if stream.status in _EXPIRED:
                return stream.status
            if stream.status == 416:
                part.restart()
                return "the server refused to go on where the connection broke"
            if stream.status in _PASSING:
                return f"the server answered {stream.status}"
            if stream.status not in {200, 206}:
                raise _error(f"the server answered {stream.status}", "refused", url)
            self._check_headers(stream, family, url)
            if not self._position(stream, part):
                return "the server went on at another place than asked"
            self._receive(stream, part, url, until=until)
        return self._finish(part, family, url)

    def _check_headers(self, stream: ByteStream, family: Family, url: str) -> None:
        try:
            promised = promised_family(stream.headers.get("content-type"))
        except ValueError as error:
            raise _error(f"the server sends {error} where a {family} was promised", "wrong_type", url) from None
        if promised not in {None, family}:
            raise _error(f"the server sends a {promised} where a {family} was promised", "wrong_type", url)

    def _position(self, stream: ByteStream, part: _Part) -> bool:
        """Go on where the part ends if this is the same file, else begin again."""
        validator = _validator(stream.headers)
        if stream.status == 200:
            part.restart()
            part.validator = validator
            length = stream.headers.get("content-length", "")
            part.total = int(length) if length.isdigit() else None
            return True
        found = _RANGE.fullmatch(stream.headers.get("content-range", ""))
        same = validator in {None, part.validator} and found is not None
        if not same or found is None or int(found[1]) != part.size or part.total not in {None, int(found[2])}:
            part.restart()
            return False
        part.total = int(found[2])
        return True

    def _receive(self, stream: ByteStream, part: _Part, url: str, *, until: float) -> None:
        if (part.total or 0) > self._policy.max_bytes:
            raise self._too_large(url)
        with part.path.open("ab", buffering=0) as file:
            while count := stream.readinto(part.buffer):
                part.size += count
                if part.size > self._policy.max_bytes:
                    raise self._too_large(url)
                piece = part.buffer[:count]
                part.digest.update(piece)
                while piece:  # a disk that is nearly full takes a part
                    piece = piece[file.write(piece) :]
                part.tell(part.size, part.total)
                if self._tick() > until:
                    message = f"took longer than {self._policy.deadline:g} s ({part.size:,} bytes came)"
                    raise _error(message, "network", url)

    def _too_large(self, url: str) -> DownloadError:
        return _error(
            f"is larger than max_bytes ({self._policy.max_bytes:,}); raise that to fetch it", "too_large", url
        )

    def _finish(self, part: _Part, family: Family, url: str) -> Fetched | str:
        if part.total is not None and part.size != part.total:
            return f"{part.size:,} of {part.total:,} bytes came"
        with part.path.open("rb") as file:
            media_type = media_type_of(file.read(16))
        if media_type is None or not media_type.startswith(family):
            raise _error(f"what came is no {family} ({part.size:,} bytes)", "wrong_type", url)
        if not is_whole(part.path, media_type):
            if part.total is not None:
                raise _error(f"the {family} ends in the middle, as the server stores it", "cut_short", url)
            size = part.size
            part.restart()
            return f"the {family} ends in the middle, after {size:,} bytes"
        return Fetched(part.size, part.digest.hexdigest(), media_type, without_query(url))

    @contextmanager
    def _following(self, url: str, headers: Mapping[str, str]) -> Iterator[ByteStream]:
        address = url
        for _ in range(self._policy.redirects + 1):
            check_link(address)
            admit = None if self._policy.allow_private else public_only(address)
            with self._client.open(address, headers=headers, admit=admit) as stream:
                location = stream.headers.get("location")
                if stream.status not in _REDIRECTS or not location:
                    yield stream
                    return
            address = urljoin(address, location)
        raise _error(f"redirects more than {self._policy.redirects} times", "refused", url)


def check_link(url: str) -> None:
    """Refuse a link that is none of the web.

    Raises:
        DownloadError: It is no http(s) link.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise _error("is no http(s) link", "refused", url)


def public_only(url: str) -> Admit:
    """What refuses the addresses of a link's host that are not public; its error says how to allow them."""

    def admit(address: str) -> None:
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            message = f"leads to the private address {address}; set allow_private=True if that is your own U-Gen"
            raise _error(message, "private_address", url)

    return admit


def _validator(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("last-modified")


def _error(message: str, reason: Reason, url: str) -> DownloadError:
    return DownloadError(f"{without_query(url)}: {message}", reason=reason, url=without_query(url))
