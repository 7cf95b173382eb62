# SPDX-License-Identifier: Apache-2.0
"""Order records that earlier versions kept as JSON files in a folder; a ledger imports each when it is first used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.ledger.record import OrderRecord


class OrderFiles:
    """A folder with one JSON file for each order.

    Args:
        folder: The folder; it may be missing.

    Examples:
        >>> OrderFiles(Path("no such folder")).find('["","name","lamp"]') is None
        True
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, order_key: str) -> OrderRecord | None:
        """Return the record of an order; None where there is no file for it.

        Raises:
            ConfigError: The file holds no order record. It may be the only trace of a purchase, so it is never ignored.
        """
        path = self._folder / f"{hashlib.sha256(order_key.encode()).hexdigest()[:32]}.json"
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return OrderRecord.from_dict(_as_record(json.loads(content)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} holds no order record: {error}") from None


def _as_record(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an order record, from those of earlier versions."""
    refused = bool(stored.get("refused", False))
    job_id = stored.get("job_id")
    known = {name: value for name, value in stored.items() if name in OrderRecord.__dataclass_fields__}
    return {
        **known,
        "order_key": stored["scope"],
        "purchase_number": stored["generation"],
        "attempt": stored.get("holder", ""),
        "token": 1,
        "maybe_bought": job_id is not None or not refused,
        "refusals": int(refused),
        "sent_at": None if refused else stored["written_at"],
    }
