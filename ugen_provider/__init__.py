# SPDX-License-Identifier: Apache-2.0
"""U-Gen product videos, from Python and Airflow: never pays twice, never loses a result, costs nothing while it waits.

The public names of the client core come straight from here, loaded when they are first used. The Airflow packages
have Airflow's names beside it: `ugen_provider.hooks.ugen`, `.operators.jobs`, `.triggers.jobs`, `.sensors.jobs`.

Allowed here: names that a user's script imports. The code itself is in the packages below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ugen_provider.__about__ import __version__

if TYPE_CHECKING:
    from ugen_provider.core.api.async_client import AsyncUGenClient as AsyncUGenClient
    from ugen_provider.core.api.client import UGenClient as UGenClient
    from ugen_provider.core.api.errors import APIError as APIError
    from ugen_provider.core.api.errors import AuthenticationError as AuthenticationError
    from ugen_provider.core.api.errors import BadRequestError as BadRequestError
    from ugen_provider.core.api.errors import ConfigError as ConfigError
    from ugen_provider.core.api.errors import ConflictError as ConflictError
    from ugen_provider.core.api.errors import InsufficientCreditsError as InsufficientCreditsError
    from ugen_provider.core.api.errors import InvalidRequestError as InvalidRequestError
    from ugen_provider.core.api.errors import NotFoundError as NotFoundError
    from ugen_provider.core.api.errors import PermissionDeniedError as PermissionDeniedError
    from ugen_provider.core.api.errors import PurchaseError as PurchaseError
    from ugen_provider.core.api.errors import RateLimitError as RateLimitError
    from ugen_provider.core.api.errors import RequestValidationError as RequestValidationError
    from ugen_provider.core.api.errors import ResponseError as ResponseError
    from ugen_provider.core.api.errors import ServerError as ServerError
    from ugen_provider.core.api.errors import TransportError as TransportError
    from ugen_provider.core.api.errors import TransportTimeoutError as TransportTimeoutError
    from ugen_provider.core.api.errors import UGenError as UGenError
    from ugen_provider.core.api.errors import WebhookError as WebhookError
    from ugen_provider.core.api.models import Balance as Balance
    from ugen_provider.core.api.models import CreateJob as CreateJob
    from ugen_provider.core.api.models import Job as Job
    from ugen_provider.core.api.models import JobState as JobState
    from ugen_provider.core.api.models import Keyframe as Keyframe
    from ugen_provider.core.api.models import ResponseMetadata as ResponseMetadata
    from ugen_provider.core.api.models import Segment as Segment
    from ugen_provider.core.api.polling import JobCancelledError as JobCancelledError
    from ugen_provider.core.api.polling import JobError as JobError
    from ugen_provider.core.api.polling import JobFailedError as JobFailedError
    from ugen_provider.core.api.polling import JobPausedError as JobPausedError
    from ugen_provider.core.api.polling import JobTimeoutError as JobTimeoutError
    from ugen_provider.core.api.polling import LowQualityError as LowQualityError
    from ugen_provider.core.api.retrying import RetryPolicy as RetryPolicy
    from ugen_provider.core.jobs.buy import buy_async as buy_async
    from ugen_provider.core.jobs.order import Purchase as Purchase
    from ugen_provider.core.jobs.sync.buy import buy as buy
    from ugen_provider.core.jobs.watcher import JobWatcher as JobWatcher

_ERRORS = (
    "APIError AuthenticationError BadRequestError ConfigError ConflictError InsufficientCreditsError "
    "InvalidRequestError NotFoundError PermissionDeniedError PurchaseError RateLimitError RequestValidationError "
    "ResponseError ServerError TransportError TransportTimeoutError UGenError WebhookError"
)
_JOB_ERRORS = "JobCancelledError JobError JobFailedError JobPausedError JobTimeoutError LowQualityError"
_HOMES = {
    "ugen_provider.core.api.async_client": "AsyncUGenClient",
    "ugen_provider.core.api.client": "UGenClient",
    "ugen_provider.core.api.errors": _ERRORS,
    "ugen_provider.core.api.polling": _JOB_ERRORS,
    "ugen_provider.core.api.models": "Balance CreateJob Job JobState Keyframe ResponseMetadata Segment",
    "ugen_provider.core.api.retrying": "RetryPolicy",
    "ugen_provider.core.jobs.buy": "buy_async",
    "ugen_provider.core.jobs.order": "Purchase",
    "ugen_provider.core.jobs.sync.buy": "buy",
    "ugen_provider.core.jobs.watcher": "JobWatcher",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package costs next to nothing."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ugen_provider' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
