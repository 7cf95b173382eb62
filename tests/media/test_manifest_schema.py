# SPDX-License-Identifier: Apache-2.0
"""The documented schema of `manifest.json` is the one that is written."""

import json
from pathlib import Path

from ugen_provider.core.media import Manifest
from ugen_provider.core.media.manifest import SCHEMA_VERSION, read_manifest

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / f"manifest-{SCHEMA_VERSION}.schema.json"


def test_the_documented_schema_is_true():
    assert json.loads(SCHEMA.read_text()) == Manifest.model_json_schema(mode="serialization")


def test_a_manifest_of_a_later_version_is_read_partially():
    later = {
        "schema_version": 2, "job_id": "j", "status": "completed", "job": {}, "written_at": "", "written_by": "",
        "mood": "new",
    }  # fmt: skip
    assert read_manifest(json.dumps(later)).job_id == "j"
    assert read_manifest("{}") is None
    assert read_manifest(b"\xff") is None
