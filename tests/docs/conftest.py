# SPDX-License-Identifier: Apache-2.0
"""What the documentation's snippets run in: a folder with a feed, a key in the environment, and a local U-Gen whose
clock goes on whenever somebody waits."""

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
    """Somebody who follows the pages; returns their folder."""
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
    (tmp_path / "dagster").mkdir()
    shutil.copy(FEED, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
