# SPDX-License-Identifier: Apache-2.0
"""A consumer's module passes both type checkers in strict mode, and a misspelled field does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WRONG = """
from ugen_provider import UGenClient

UGenClient(api_key="k").jobs.create(product_nam="Lamp")
"""


def mypy(path, tmp_path):
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    cache = f"--cache-dir={HERE.parents[1] / '.mypy_cache'}"
    command = [sys.executable, "-m", "mypy", "--config-file", str(tmp_path / "mypy.ini"), cache, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def pyright(path, tmp_path):
    settings = {"include": [str(path)], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--project", str(tmp_path), "--pythonpath", sys.executable]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("check", [mypy, pyright])
def test_a_consumer_is_typed_in_strict_mode(check, tmp_path):
    copy = tmp_path / "consumer.py"
    copy.write_text((HERE / "consumer.py").read_text())
    said = check(copy, tmp_path)
    assert said.returncode == 0, said.stdout
    copy.write_text(WRONG)
    said = check(copy, tmp_path)
    assert said.returncode != 0
    assert "product_nam" in said.stdout
