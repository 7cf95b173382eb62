# SPDX-License-Identifier: Apache-2.0
"""The client refuses invalid requests before it sends anything, by field and rule."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugen_provider import CreateJob, InvalidRequestError
from ugen_provider.core.api import rules
from ugen_provider.core.api.models import RequestIgnoredWarning

GOOD = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 2}


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"video_model": "veo3_fast", "segment_duration": 5}, "segment_duration", "8 s only"),
        ({"video_model": "veo3", "segment_duration": 10}, "segment_duration", "8 s only"),
        ({"video_model": "kling3_std", "segment_duration": 2}, "segment_duration", "3 to 10 s"),
        ({"video_model": "kling3_pro", "segment_duration": 11}, "segment_duration", "3 to 10 s"),
        ({"video_model": "veo3_fast", "aspect_ratio": "1:1"}, "aspect_ratio", "Kling models only"),
        ({"segment_count": 0}, "segment_count", "at least 1"),
        ({"segment_count": 11}, "segment_count", "at most 10"),
        ({"segment_count": True}, "segment_count", "whole number"),
        ({"segment_count": 2.0}, "segment_count", "whole number"),
        ({"max_retries_keyframe": 6}, "max_retries_keyframe", "at most 5"),
        ({"max_retries_video": -1}, "max_retries_video", "at least 0"),
        ({"music_volume": 1.5}, "music_volume", "at most 1"),
        ({"music_volume": -0.1}, "music_volume", "at least 0"),
        ({"product_image_url": "ftp://shop.example/lamp.jpg"}, "product_image_url", "http(s) URL"),
        ({"product_image_url": "/lamp.jpg"}, "product_image_url", "http(s) URL"),
        ({"webhook_url": "shop.example/hook"}, "webhook_url", "http(s) URL"),
        ({"product_name": "  "}, "product_name", "not be empty"),
        ({"stop_at_stage": "upload"}, "stop_at_stage", "one of prepare"),
        ({"key_selling_points": "bright"}, "key_selling_points", "list of texts"),
        ({"surprise": 1}, "surprise", "not a field"),
    ],
)
def test_a_broken_rule_is_refused_by_field_and_rule(fields, field, rule):
    with pytest.raises(InvalidRequestError) as caught:
        CreateJob(**{**GOOD, **fields})
    assert [v.field for v in caught.value.violations] == [field]
    assert rule in str(caught.value)


@pytest.mark.parametrize("missing", ["product_name", "product_image_url", "segment_count"])
def test_each_required_field_is_demanded(missing):
    with pytest.raises(InvalidRequestError, match=f"{missing}: is required"):
        CreateJob(**{name: value for name, value in GOOD.items() if name != missing})


def test_all_broken_rules_are_reported_at_once():
    with pytest.raises(InvalidRequestError) as caught:
        CreateJob(product_name="", product_image_url="x", segment_count=99)
    assert [v.field for v in caught.value.violations] == ["product_name", "product_image_url", "segment_count"]


def test_value_lists_left_open_by_the_documentation_stay_open():
    job = CreateJob(**GOOD, video_model="sora9", interaction_mode="juggled", qai_mode="mild", caption_style="none_yet")
    assert job.body()["interaction_mode"] == "juggled"


def test_model_rules_wait_until_the_model_is_known():
    square = CreateJob(**GOOD, aspect_ratio="1:1", segment_duration=5)
    assert square.with_model("kling3_std").body()["video_model"] == "kling3_std"
    with pytest.raises(InvalidRequestError, match="aspect_ratio"):
        square.with_model(None)  # the specification's default is a Veo model


def test_only_what_was_set_is_sent():
    assert CreateJob(**GOOD).body() == GOOD


@pytest.mark.parametrize("ignored", ["key_selling_points", "cta_text", "script_tone", "script_structure"])
def test_ignored_combinations_are_warnings_that_name_both(ignored):
    value = ["bright"] if ignored == "key_selling_points" else "x"
    with pytest.warns(RequestIgnoredWarning, match=f"custom_script is set, so {ignored} is ignored"):
        CreateJob(**GOOD, custom_script="Look!", **{ignored: value})


def test_pending_fields_are_not_judged_and_not_demanded():
    assert rules.check({"segment_count": 2}, pending=("product_name", "product_image_url")) == []


def test_text_from_templates_becomes_what_the_field_holds():
    rendered = {"segment_count": " 3 ", "music_volume": "0.5", "captions_enabled": "False", "cta_text": ""}
    assert rules.coerce(rendered) == {"segment_count": 3, "music_volume": 0.5, "captions_enabled": False}
    assert rules.coerce({"key_selling_points": '["a", "b"]'}) == {"key_selling_points": ["a", "b"]}
    assert rules.check({**GOOD, **rules.coerce({"segment_count": "many"})})[0].field == "segment_count"


def test_the_table_and_the_model_have_the_35_documented_fields():
    assert len(rules.FIELDS) == 35
    assert [rule.name for rule in rules.FIELDS] == list(CreateJob.model_fields)


@given(
    st.dictionaries(
        st.sampled_from([r.name for r in rules.FIELDS]),
        st.from_type(type) | st.none() | st.integers() | st.text() | st.floats() | st.lists(st.text()),
    )
)
def test_any_argument_is_accepted_or_refused_by_our_own_error(fields):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RequestIgnoredWarning)
        try:
            made = CreateJob(**{**GOOD, **fields})
        except InvalidRequestError as error:
            assert error.violations  # noqa: PT017
        else:
            assert rules.check(made.body()) == []


def test_errors_rules_config_import_no_httpx_or_pydantic():
    code = (
        "import sys; import ugen_provider; from ugen_provider.core.api import errors, rules, config;"
        "from ugen_provider.core.jobs import webhooks;"
        "sys.exit(', '.join({'httpx', 'pydantic', 'pendulum'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )
