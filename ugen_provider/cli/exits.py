# SPDX-License-Identifier: Apache-2.0
"""The exit codes, in one table, and which error ends with which. Pure; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """What a script is told."""

    DONE = 0
    JOB_FAILED = 1
    USAGE = 2
    REFUSED = 3
    NO_CREDITS = 4
    TIMEOUT = 5
    TROUBLE = 6
    INTERRUPTED = 130


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Done. A feed run: also with rejected rows, and where its budget is used up.",
    ExitCode.JOB_FAILED: "A job failed or was cancelled. A feed run: a product failed.",
    ExitCode.USAGE: "Wrong usage or settings; nothing was sent. A feed: it cannot be read, or is plainly wrong.",
    ExitCode.REFUSED: "The API refused, or going on could pay twice.",
    ExitCode.NO_CREDITS: "Not enough credits.",
    ExitCode.TIMEOUT: "The time was up; the job was left running.",
    ExitCode.TROUBLE: "Trouble on this machine, on the network or in the service; trying again may help.",
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C; what runs goes on.",
}
"""All exit codes of `ugen`."""

_WORST_FIRST = (
    ExitCode.INTERRUPTED,
    ExitCode.JOB_FAILED,
    ExitCode.NO_CREDITS,
    ExitCode.REFUSED,
    ExitCode.USAGE,
    ExitCode.TIMEOUT,
    ExitCode.TROUBLE,
)
_OF_THE_DATABASE = "check the room on its disk, whether it may be written, and whether its server runs"
_DEAD_JOB = ("cancelled", "failed", "moderation", "validation", "stage_retries", "paused")


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The one code for several things that were done.

    Examples:
        >>> worst([ExitCode.DONE, ExitCode.TIMEOUT, ExitCode.JOB_FAILED])
        <ExitCode.JOB_FAILED: 1>
    """
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), ExitCode.DONE)


def exit_of(error: BaseException) -> ExitCode:
    """The exit code of an error.

    Examples:
        >>> exit_of(OSError("No space left on device"))
        <ExitCode.TROUBLE: 6>
    """
    return _judged(error)[0]


def next_step(error: BaseException) -> str:
    """What to do about an error; empty where its message says so already."""
    job_id = getattr(error, "job_id", None)
    advice = _judged(error)[1]
    return advice if job_id is None else advice.replace(" JOB`", f" {job_id}`")


def _judged(error: BaseException) -> tuple[ExitCode, str]:
    from ugen_provider.core.api import errors as api
    from ugen_provider.core.batch.errors import LeaseLostError, LedgerUnavailableError, RunRefusedError
    from ugen_provider.core.feeds.errors import FeedError, MappingError
    from ugen_provider.core.media.errors import DownloadError

    if isinstance(error, api.PurchaseError):
        return _of_a_purchase(error.reason)
    if isinstance(error, RunRefusedError):
        return _of_a_refused_run(error.reason)
    table: tuple[tuple[type[BaseException], ExitCode, str], ...] = (
        (KeyboardInterrupt, ExitCode.INTERRUPTED, ""),
        (
            FeedError,
            ExitCode.USAGE,
            "correct the feed or its address; `ugen feed check FEED` tries it and buys nothing",
        ),
        (MappingError, ExitCode.USAGE, "correct it; `ugen feed check FEED --mapping FILE` tries it and buys nothing"),
        (api.ConfigError, ExitCode.USAGE, "`ugen doctor` shows which settings are in use"),
        (
            api.InvalidRequestError,
            ExitCode.USAGE,
            "correct the named fields (segment_count is --segment-count); nothing was sent",
        ),
        (api.InsufficientCreditsError, ExitCode.NO_CREDITS, "`ugen credits balance` shows what is left"),
        (api.JobTimeoutError, ExitCode.TIMEOUT, "`ugen jobs wait JOB` attaches to it again"),
        (api.JobPausedError, ExitCode.JOB_FAILED, "`ugen jobs resume JOB` lets it go on"),
        (api.LowQualityError, ExitCode.JOB_FAILED, "the video exists: `ugen jobs download JOB`"),
        (api.JobCancelledError, ExitCode.JOB_FAILED, "create another one if it is still wanted"),
        (api.JobFailedError, ExitCode.JOB_FAILED, "`ugen jobs get JOB` shows why; `ugen jobs retry JOB` tries again"),
        (api.AuthenticationError, ExitCode.REFUSED, "check the API key: `ugen doctor` shows which one is in use"),
        (api.PermissionDeniedError, ExitCode.REFUSED, "check what the API key may do: `ugen doctor`"),
        (api.NotFoundError, ExitCode.REFUSED, "`ugen jobs list` shows what this account has; is it the right account?"),
        (api.ConflictError, ExitCode.REFUSED, "`ugen jobs get JOB` shows what the job is doing now"),
        (api.RequestValidationError, ExitCode.REFUSED, "correct the named fields"),
        (api.RateLimitError, ExitCode.REFUSED, "wait until a job has ended, or give --slot-timeout"),
        (api.ServerError, ExitCode.TROUBLE, "try again in a minute"),
        (api.APIError, ExitCode.REFUSED, "`ugen doctor` shows what the service says to this account"),
        (api.ResponseError, ExitCode.TROUBLE, "check the base URL and any proxy: `ugen doctor`"),
        (api.TransportError, ExitCode.TROUBLE, "check the network and the base URL: `ugen doctor`"),
        (DownloadError, ExitCode.TROUBLE, "run it again: what is whole is not fetched twice"),
        (LeaseLostError, ExitCode.TROUBLE, "another run works on it; run it again later"),
        (LedgerUnavailableError, ExitCode.TROUBLE, _OF_THE_DATABASE),
        (api.UGenError, ExitCode.REFUSED, ""),
        (OSError, ExitCode.TROUBLE, "check the path, its permissions and the room on its disk"),
    )
    for kind, code, advice in table:
        if isinstance(error, kind):
            return code, advice
    # What is left of what a command expects is the ledger's database.
    return ExitCode.TROUBLE, _OF_THE_DATABASE


def _of_a_purchase(reason: str) -> tuple[ExitCode, str]:
    if reason.startswith("spending_"):
        return ExitCode.REFUSED, "the profile's `spending`, or UGEN_SPENDING, allows it"
    if reason == "over_max_credits":
        return ExitCode.REFUSED, "--max-credits allows more"
    if reason.startswith(_DEAD_JOB):
        return ExitCode.JOB_FAILED, "--regenerate with a new value buys another one"
    return ExitCode.REFUSED, ""


def _of_a_refused_run(reason: str) -> tuple[ExitCode, str]:
    match reason:
        case "max_rejected":
            return ExitCode.USAGE, "`ugen feed check` names the rows; nothing was bought"
        case "max_changed":
            return ExitCode.USAGE, "--max-changed allows more"
        case "budget":
            return ExitCode.NO_CREDITS, "--budget allows more"
        case "ledger":
            return ExitCode.TROUBLE, "--ledger names another one"
        case _:
            return ExitCode.REFUSED, "--assume-credits says what to count"
