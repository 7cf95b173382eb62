# SPDX-License-Identifier: Apache-2.0
"""The password of a ledger's connection is in no frame of an error, in a task as in the triggerer."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.leaks import leaks
from ugen_provider.core.api.errors import UGenError
from ugen_provider.hooks import ugen

PASSWORD = "a-pa55word-of-the-database"


async def in_triggerer(conn_id: str) -> Any:
    ugen.open_address(await ugen.aledger_address(conn_id))


WAYS = {"task": ugen.open_ledger, "triggerer": lambda conn_id: asyncio.run(in_triggerer(conn_id))}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_no_frame_holds_the_password_of_a_ledger(monkeypatch: pytest.MonkeyPatch, kind: str, way: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = f"{kind}://ugen:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/ugen"
        monkeypatch.setenv("AIRFLOW_CONN_A_LEDGER", place)
        with pytest.raises(UGenError) as caught:
            WAYS[way]("a_ledger")
    assert leaks(caught.value, PASSWORD, own=__file__) == []
