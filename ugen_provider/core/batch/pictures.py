# SPDX-License-Identifier: Apache-2.0
"""Pictures that the service cannot reach, on a disk or behind fsspec: read once, uploaded once per content."""

from __future__ import annotations

import asyncio
import hashlib

import sqlalchemy as sa

from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.ledger import Ledger, upsert

LARGEST = 10 << 20
"""Bytes; the service takes no larger ones."""


def picture_identity(ledger: Ledger, address: str) -> str:
    """The digest of a picture's content, read again only when its size or time changed.

    Args:
        ledger: Remembers what was read.
        address: A path or fsspec URL.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, or of a kind of storage that is not known.
    """
    import fsspec

    filesystem, path = fsspec.url_to_fs(address)
    info = filesystem.info(path)
    if info["type"] != "file":
        raise ValueError("is no file")
    if (info.get("size") or 0) > LARGEST:
        raise ValueError(f"is larger than {LARGEST:,} bytes")
    stamp = "|".join(str(info.get(name)) for name in ("size", "mtime", "ETag", "etag", "LastModified", "created"))
    table = schema.picture_source
    query = sa.select(table.c.stamp, table.c.digest).where(table.c.address == address)
    known = ledger.read(lambda connection: connection.execute(query).one_or_none())
    if known is not None and known.stamp == stamp:
        return str(known.digest)
    digest = hashlib.sha256(filesystem.cat_file(path)).hexdigest()
    values = {"address": address, "stamp": stamp, "digest": digest}
    ledger.writer.run(lambda connection: upsert(connection, table, values))
    return digest


class Pictures:
    """Uploads, each content once for all runs of a ledger.

    Args:
        client: Uploads.
        ledger: Remembers what was uploaded.
        namespace: Of the connection: another account does not see the same uploads.
    """

    def __init__(self, client: AsyncUGenClient, ledger: Ledger, *, namespace: str) -> None:
        self._client = client
        self._ledger = ledger
        self._namespace = namespace
        self._coming: dict[str, asyncio.Future[str]] = {}

    async def url(self, address: str, *, digest: str) -> str:
        """Where the service finds a picture. Free; `POST /uploads/product-image` at most once per content.

        Args:
            address: A path or fsspec URL.
            digest: Of its content, as it was planned.

        Raises:
            OSError: It cannot be read.
            InvalidRequestError: It is no picture that the service takes.
        """
        coming = self._coming.get(digest)
        if coming is None:
            coming = self._coming[digest] = asyncio.ensure_future(self._upload(address, digest))
        return await asyncio.shield(coming)

    async def _upload(self, address: str, digest: str) -> str:
        table = schema.picture
        query = sa.select(table.c.url).where(table.c.namespace == self._namespace, table.c.digest == digest)
        known = await asyncio.to_thread(self._ledger.read, lambda connection: connection.execute(query).scalar())
        if known is not None:
            return str(known)
        content = await asyncio.to_thread(_read, address)
        url = (await self._client.uploads.create_product_image(content, filename=address.rpartition("/")[2])).url
        values = {"namespace": self._namespace, "digest": digest, "url": url, "uploaded_at": self._ledger.now()}
        await asyncio.to_thread(self._ledger.writer.run, lambda connection: upsert(connection, table, values))
        return url


def _read(address: str) -> bytes:
    import fsspec

    filesystem, path = fsspec.url_to_fs(address)
    return bytes(filesystem.cat_file(path))
