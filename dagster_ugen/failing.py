# SPDX-License-Identifier: Apache-2.0
"""The failure of a run, in words that a person can act on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster_ugen.results import Failed


def failure_of(failed: "Sequence[Failed]", *, of: int) -> dg.Failure:
    """The failure of a run: which partitions failed and why, for a person who can act on it.

    Dagster's own retries are allowed only where at least one of them may mend something.
    """
    retryable = any(each.retryable for each in failed)
    told = "; ".join(f"{each.partition}: {each.error}" if each.partition else str(each.error) for each in failed[:20])
    more = f"; and {len(failed) - 20} more" if len(failed) > 20 else ""
    counted = f"{len(failed)} of {of} partitions failed: " if of > 1 else ""
    made = dg.Failure(
        description=f"{counted}{told}{more}",
        metadata={
            "ugen/failed_partitions": dg.MetadataValue.json([each.partition for each in failed]),
            "ugen/errors": dg.MetadataValue.json(
                {each.partition: f"{type(each.error).__name__}: {each.error}" for each in failed}
            ),
        },
        allow_retries=retryable,
    )
    made.__cause__ = failed[0].error if len(failed) == 1 else None
    return made
