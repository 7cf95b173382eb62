# SPDX-License-Identifier: Apache-2.0
"""The environment of the documentation's snippets: a folder with a feed, a key in the environment, and a local U-Gen
whose clock moves whenever a caller waits."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ugen_provider.emulator.settings import LOCAL_KEY

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="ugen-airflow-"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
FEED = Path(__file__).parents[2] / "examples" / "feed.xml"


@pytest.fixture
def reader(ugen_emulator: Any, ugen_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepare the folder of a reader who follows the pages, and return it."""
    from tests.core.local import live_by

    live_by(ugen_clock, monkeypatch)
    connection = {"conn_type": "ugen", "password": LOCAL_KEY, "extra": {"base_url": ugen_emulator.base_url}}
    settings = {
        "UGEN_API_KEY": LOCAL_KEY,
        "UGEN_BASE_URL": ugen_emulator.base_url,
        "AIRFLOW_CONN_UGEN_DEFAULT": json.dumps(connection),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "HOME": str(tmp_path),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # A reader's disk is durable, even if the disk of the tests is not.
    monkeypatch.setattr("ugen_provider.core.ledger.database._EPHEMERAL", frozenset())
    (tmp_path / "dagster").mkdir()
    shutil.copy(FEED, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
