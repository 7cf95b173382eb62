# SPDX-License-Identifier: Apache-2.0
"""Templates that render to nothing, at any depth, in text and in native rendering; and what a function returns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG, Param

from tests.airflow.deferring import run
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.decorators.jobs import FIELDS, UGenJobDecoratedOperator
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCreateJobOperator, UGenResumeJobOperator
from ugen_provider.operators.templates import fill_in, rendered_fields
from ugen_provider.sensors.jobs import UGenJobSensor

pytestmark = pytest.mark.usefixtures("connection", "moving_clock")

LAMP: dict[str, Any] = {
    "product_name": "Lamp",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
}
CONTEXT: dict[str, Any] = {
    "none": None,
    "params": {"color": "red", "nothing": None, "empty": "", "sku": "501", "points": ["bright", None]},
    "ds": "2026-11-30",
    "run_id": "manual__1",
    "logical_date": datetime(2026, 11, 30, tzinfo=UTC),
}


@pytest.fixture(params=[False, True], ids=["text", "native"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[jinja2.StrictUndefined, jinja2.Undefined, jinja2.ChainableUndefined])
def undefined(request: pytest.FixtureRequest) -> Any:
    return request.param


def in_dag(make: Any, *, native: bool, undefined: Any = jinja2.StrictUndefined) -> Any:
    with DAG("dag", render_template_as_native_obj=native, template_undefined=undefined):
        return make()


def rendered(task: Any, more: dict[str, Any] | None = None) -> Any:
    task.render_template_fields({**CONTEXT, **(more or {})})
    return task


NOTHING: dict[str, dict[str, Any]] = {
    "none": {"cta_text": "{{ none }}"},
    "none_in_text": {"product_name": "{{ none }} lamp"},
    "undefined_in_text": {"product_name": "Lamp {{ color }}!"},
    "empty": {"cta_text": "{{ params.empty }}"},
    "spaces": {"product_name": " {{ params.empty }} "},
    "in_a_list": {"key_selling_points": ["good", "{{ none }}"]},
    "empty_in_a_list": {"key_selling_points": ["good", "{{ params.empty }}"]},
    "in_a_nested_dict": {"voice_settings": {"style": {"tone": ["a", "{{ params.nothing }}"]}}},
    "in_job": {"job": {**LAMP, "custom_script": "Buy {{ params.nothing }} now"}},
    "in_a_list_of_job": {"job": {**LAMP, "key_selling_points": ["{{ undefined_name }}"]}},
    "output_path": {"output_path": "s3://videos/{{ params.nothing }}/x"},
    "scope_key": {"scope_key": "{{ params.nothing }}-1"},
    "regenerate": {"regenerate": "{{ params.nothing }}"},
}


@pytest.mark.parametrize("fields", NOTHING.values(), ids=list(NOTHING))
def test_template_rendered_to_nothing_is_refused(fields: dict[str, Any], native: bool, undefined: Any) -> None:
    given = fields if "job" in fields else {**LAMP, **fields}
    task = in_dag(lambda: UGenCreateJobOperator(task_id="job", **given), native=native, undefined=undefined)
    with pytest.raises(UGenFailure, match=r"None or undefined|is undefined|rendered to nothing"):
        rendered(task)


@pytest.mark.parametrize("kind", [UGenResumeJobOperator, UGenJobSensor])
def test_template_of_job_id_in_text_is_refused(kind: Any, native: bool) -> None:
    task = in_dag(lambda: kind(task_id="x", job_id="job-{{ params.nothing }}"), native=native)
    with pytest.raises(UGenFailure, match="None or undefined"):
        rendered(task)


def test_template_with_values_renders_as_in_airflow(native: bool) -> None:
    given = {**LAMP, "product_name": "{{ params.color }} lamp", "key_selling_points": ["{{ ds }}", "good"]}
    task = rendered(in_dag(lambda: UGenCreateJobOperator(task_id="job", **given), native=native))
    assert (task.product_name, task.key_selling_points) == ("red lamp", ["2026-11-30", "good"])


def test_native_number_becomes_text(attempts: Any, ugen_emulator: Any) -> None:
    given = {**LAMP, "product_name": "{{ params.sku }}", "key_selling_points": ["{{ params.sku }}", "good"]}
    task = in_dag(lambda: UGenCreateJobOperator(task_id="job", deferrable=False, **given), native=True)
    rendered(task)
    assert task.product_name == 501
    result = run(task, attempts.next())
    with_name = ugen_emulator.emulator.journal.find_requests(method="POST", path="/api/v1/jobs")
    assert (result["status"], len(with_name)) == ("completed", 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"key_selling_points": ["good", None]},
        {"key_selling_points": ["good", ""]},
        {"key_selling_points": ["None"]},
        {"voice_settings": {"a": {"b": [1, " "]}}},
        {"product_name": "None"},
    ],
)
def test_rendered_fields_empty_part_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"is empty|rendered to nothing"):
        rendered_fields(fields)


class TestDecorator:
    def task(self, function: Any, **more: Any) -> Any:
        return UGenJobDecoratedOperator(
            task_id="job", python_callable=function, op_args=[], op_kwargs={}, deferrable=True, **more
        )

    def test_ugen_job_returned_names_are_replaced(self, attempts: Any) -> None:
        context = {**attempts.next(), **CONTEXT}
        fields = {**LAMP, "product_name": "{{ params.color }} lamp", "key_selling_points": ["of {{ ds }}"]}
        assert run(self.task(lambda: fields), context)["status"] == "completed"
        kept = attempts.ti.xcoms[FIELDS]
        assert (kept["product_name"], kept["key_selling_points"]) == ("red lamp", ["of 2026-11-30"])

    def test_ugen_job_async_function_is_awaited(self, attempts: Any) -> None:
        async def make() -> dict[str, Any]:
            return LAMP

        assert run(self.task(make), attempts.next())["status"] == "completed"

    @pytest.mark.parametrize(
        "text",
        [
            "{{ conn.ugen_default.password }}",
            "{{ var.value.secret }}",
            "{{ ti.xcom_pull('x') }}",
            "{{ params.nothing }}",
            "{{ params.color.__class__ }}",
            "{{ task.hook }}",
            "{{ '' .__class__ }}",
            "{{ 9**9**9 }}",
            "{% for x in y %}{% endfor %}",
            "Buy {{ now",
            "{{ ds | upper }}",
        ],
    )
    def test_ugen_job_other_braces_are_refused(self, attempts: Any, ugen_emulator: Any, text: str) -> None:
        context = {**attempts.next(), **CONTEXT}
        fields = {**LAMP, "custom_script": f"Look: {text}"}
        with pytest.raises(UGenFailure, match="custom_script: "):
            run(self.task(lambda: fields), context)
        assert not ugen_emulator.emulator.journal.find_purchases()
        assert FIELDS not in attempts.ti.xcoms

    def test_ugen_job_replaced_value_is_not_rendered_again(self) -> None:
        hostile = {"params": {"name": "{{ conn.ugen_default.password }}"}}
        assert fill_in("{{ params.name }}", hostile) == "{{ conn.ugen_default.password }}"

    def test_ugen_job_arguments_of_the_function_may_be_none(self) -> None:
        with DAG("dag", params={"nothing": Param(None)}, render_template_as_native_obj=True):
            given = {"color": "{{ params.nothing }}", "names": ["{{ params.nothing }}"]}
            task = UGenJobDecoratedOperator(
                task_id="job", python_callable=lambda color, names: LAMP, op_args=[], op_kwargs=given
            )
        assert rendered(task).op_kwargs == {"color": None, "names": [None]}
