# SPDX-License-Identifier: Apache-2.0
"""Order files of earlier versions: a file that was cut may be the only trace of a purchase, so the error names it."""

import hashlib
import json

import pytest

from ugen_provider import ConfigError
from ugen_provider.core.ledger.order_files import OrderFiles

KEY = '["","name","lamp"]'
STORED = {
    "scope": KEY,
    "generation": 0,
    "key": "k",
    "body": {"product_name": "Lämpchen"},
    "fingerprint": "f",
    "scheme": 1,
    "written_at": 1.0,
    "refused": False,
    "job_id": "j1",
}
WHOLE = json.dumps(STORED, ensure_ascii=False).encode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / f"{hashlib.sha256(KEY.encode()).hexdigest()[:32]}.json"


def test_order_file_is_read(path):
    path.write_bytes(WHOLE)
    found = OrderFiles(path.parent).find(KEY)
    assert (found.job_id, found.maybe_bought) == ("j1", True)


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_order_file_cut_at_any_byte_is_named(path, length):
    path.write_bytes(WHOLE[:length])
    with pytest.raises(ConfigError) as caught:
        OrderFiles(path.parent).find(KEY)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["null", "[]", "7", '"x"', "{}", '{"scope": 1}', '{"scope": "s", "generation": 0}'])
def test_order_file_with_other_json_is_named(path, content):
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        OrderFiles(path.parent).find(KEY)
    assert str(path) in str(caught.value)
