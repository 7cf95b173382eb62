# SPDX-License-Identifier: Apache-2.0
"""`@task.ugen_job`: the function returns the job's fields."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.operators.arguments import RuntimeValue
from ugen_provider.operators.create import UGenCreateJobOperator
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.operators.templates import GivenFields, fill_in
from ugen_provider.version_compat import determine_kwargs

if TYPE_CHECKING:
    from airflow.sdk import Context

FIELDS = "ugen_fields"
"""The XCom that holds what the function returned, so that coming back from the triggerer does not call it again."""


# pyright: reportIncompatibleVariableOverride=false
# Airflow's two bases declare `template_fields` differently.
class UGenJobDecoratedOperator(DecoratedOperator, UGenCreateJobOperator):
    """Operator behind the decorator `@task.ugen_job`.

    Args:
        python_callable: Returns the job's fields, as a dict; it may be an `async def`. In its texts the names of plain
            values are replaced: `{{ ds }}`, `{{ run_id }}`, `{{ params.NAME }}`, `{{ dag_run.conf.NAME }}`.
        op_args: Its positional arguments.
        op_kwargs: Its keyword arguments.
    """

    template_fields: Sequence[str] = GivenFields(
        (*DecoratedOperator.template_fields, *UGenCreateJobOperator.template_fields)
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **UGenCreateJobOperator.template_fields_renderers,
    }
    custom_operator_name: str = "@task.ugen_job"
    unchecked_fields = ("op_args", "op_kwargs")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, job=RuntimeValue.LATER, **kwargs
        )

    def execute(self, context: Context) -> Any:
        """Call the function, and buy what it returned."""
        known: dict[str, Any] = {**context, **self.op_kwargs}
        kwargs = determine_kwargs(self.python_callable, self.op_args, known)
        fields = self.python_callable(*self.op_args, **kwargs)
        if inspect.isawaitable(fields):
            fields = asyncio.run(_result_of(fields))
        with fail_without_retry(self.ugen_conn_id):
            if not isinstance(fields, Mapping):
                raise ConfigError(
                    f"{self.task_id}: the function must return the job's fields as a dict, got {type(fields).__name__}"
                )
            made = fill_in(fields, known)
        context["ti"].xcom_push(key=FIELDS, value=made)
        self.job = made
        return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Come back from the triggerer with the fields that the function returned before."""
        self.job = context["ti"].xcom_pull(task_ids=self.task_id, key=FIELDS, map_indexes=context["ti"].map_index)
        return super().resume_execution(next_method, next_kwargs, context)


async def _result_of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def ugen_job_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Turn a function that returns a job's fields into a task that buys it; takes the create operator's arguments.

    The function may be an `async def`. In the texts that it returns, the names of a run's plain values are replaced:
    `{{ ds }}`, `{{ ts }}`, `{{ run_id }}`, `{{ params.NAME }}`, `{{ dag_run.conf.NAME }}`. Nothing else is rendered,
    since what a function returns may be data of other people; any other braces are refused.

    Examples:
        ```python
        @task.ugen_job(deferrable=True, output_path="s3://videos/")
        def make_video(product):
            return {"product_name": product["title"], "product_image_url": product["image"], "segment_count": 2}
        ```
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=True if multiple_outputs is None else multiple_outputs,
        decorated_operator_class=UGenJobDecoratedOperator,
        **kwargs,
    )
