# SPDX-License-Identifier: Apache-2.0
"""A user of the orchestrator without the key: launches runs and posts deliveries, and never receives or uses the key.

The plugin's own tests show the rights of such a user over jobs in Airflow's pages.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "ugen_sk_of_the_team"
DEFINITIONS = """
import dagster as dg
from dagster_ugen import UGenResource

@dg.asset
def balance(ugen: UGenResource) -> None:
    with ugen.get_client() as client:
        client.credits.balance()

defs = dg.Definitions(
    assets=[balance],
    resources={{"ugen": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url="{home}", max_retries=0)}},
)
"""


@pytest.fixture
def launch(tmp_path, canary):
    """Materializes the asset in a process of its own, with a configuration as the launchpad takes it."""
    home = tmp_path / "dagster"
    home.mkdir()
    definitions = tmp_path / "defs.py"
    canary.serve(
        "/api/v1/credits/balance", b'{"credit_balance": 5, "available_credits": 5}', content_type="application/json"
    )
    definitions.write_text(DEFINITIONS.format(home=f"{canary.url}/api/v1"))

    def run(**config):
        env = {"PATH": os.environ["PATH"], "DAGSTER_HOME": str(home), "UGEN_API_KEY": KEY,
               "DAGSTER_DISABLE_TELEMETRY": "1"}  # fmt: skip
        command = [Path(sys.executable).with_name("dagster"), "asset", "materialize", "--select", "balance",
                   "-f", definitions]  # fmt: skip
        if config:
            command += ["--config-json", json.dumps({"resources": {"ugen": {"config": config}}})]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    return run


def test_run_as_defined_uses_the_key(launch, canary):
    """Else the tests below would show nothing."""
    assert launch().returncode == 0
    assert canary.requests[0][1]["x-api-key"] == KEY


@pytest.mark.parametrize("leave", [{}, {"allow_base_url_override": True}], ids=["plain", "own-leave"])
def test_run_to_an_own_server_never_sends_the_key(launch, tmp_path, leave):
    from tests.media.conftest import Storage

    own = Storage()
    try:
        ran = launch(api_key={"env": "UGEN_API_KEY"}, base_url=f"{own.url}/api/v1", max_retries=0, **leave)
    finally:
        own.close()
    assert ran.returncode != 0
    assert "allow_base_url_override" in ran.stdout + ran.stderr
    assert own.requests == []
    assert KEY not in ran.stdout + ran.stderr
