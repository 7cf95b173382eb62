# SPDX-License-Identifier: Apache-2.0
"""What one run is to do, as a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dagster_ugen.gating import GateLimit
from dagster_ugen.intents import IntentLog
from dagster_ugen.options import UGenOptions
from dagster_ugen.requests import Requests
from dagster_ugen.results import Delivered
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.jobs.gate import Approval
from ugen_provider.core.jobs.scope import Scope

Interruption = Literal["person", "signal"]
Phase = Literal["whole", "anchor", "rest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one run is to do.

    Attributes:
        config: The account's settings.
        read_config: Reads them again, where the key is refused.
        scope_of: The order's scope of a partition.
        partitions: The partitions; '' for an unpartitioned asset.
        requests: Says what is ordered for them.
        phase: `whole` without a gate; with one, `anchor` stops at it and `rest` passes it.
        approval_of: The yes to a partition's look, in the phase `rest`; called in a thread.
        gates: How many gates may be open, in the phase `anchor`; None sets no limit.
        options: The user's choices.
        wait: Whether to wait for jobs; else what has not ended is left for a later run.
        regenerate: The value by which another generation of a partition is asked for.
        destination: Where results are stored; None leaves them with the service.
        allow_private: Whether links may lead to private addresses.
        poll_interval: Seconds between looks at a job.
        log: The intents.
        record: Records a partition's result; called in a thread, one at a time.
        interruption: Tells who interrupted the run; called in a thread.
    """

    config: ClientConfig
    read_config: Callable[[], ClientConfig]
    scope_of: Callable[[str], Scope]
    partitions: Sequence[str]
    requests: Requests
    wait: bool = True
    phase: Phase = "whole"
    approval_of: Callable[[str], Approval | None] = lambda _partition: None
    gates: GateLimit | None = None
    options: UGenOptions
    regenerate: Callable[[str], str | None] = lambda _partition: None
    destination: str | None = None
    allow_private: bool = False
    poll_interval: float = 10.0
    log: IntentLog
    record: Callable[[Delivered], None]
    interruption: Callable[[], Interruption]
