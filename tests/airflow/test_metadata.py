# SPDX-License-Identifier: Apache-2.0
"""What Airflow's pages and registries read of the distribution."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ugen_provider.get_provider_info import get_provider_info

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


def test_project_names_the_documentation_that_airflow_shows() -> None:
    assert PROJECT["urls"]["Documentation"] == get_provider_info()["integrations"][0]["external-doc-url"]


def test_provider_names_the_scheme_of_its_assets() -> None:
    assert get_provider_info()["asset-uris"] == [{"schemes": ["ugen"], "handler": None}]
