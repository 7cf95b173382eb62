# SPDX-License-Identifier: Apache-2.0
"""The operators for jobs, under the address that users import from."""

from ugen_provider.operators.control import (
    UGenCancelJobOperator,
    UGenPauseJobOperator,
    UGenResumeJobOperator,
    UGenRetryJobOperator,
)
from ugen_provider.operators.create import UGenCreateJobOperator

__all__ = [
    "UGenCancelJobOperator",
    "UGenCreateJobOperator",
    "UGenPauseJobOperator",
    "UGenResumeJobOperator",
    "UGenRetryJobOperator",
]
