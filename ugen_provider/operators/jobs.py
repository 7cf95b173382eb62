# SPDX-License-Identifier: Apache-2.0
"""The operators for jobs, under the address that users import from."""

from ugen_provider.operators.create import UGenCreateJobOperator

__all__ = ["UGenCreateJobOperator"]
