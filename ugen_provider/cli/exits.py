# SPDX-License-Identifier: Apache-2.0
"""The exit codes, and the code and next step of each error. Pure; imports nothing heavy."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """The result of a command, for scripts."""

    DONE = 0
    JOB_FAILED = 1
    USAGE = 2
    REFUSED = 3
    NO_CREDITS = 4
    TIMEOUT = 5
    TROUBLE = 6
    INTERRUPTED = 130


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Done. A feed run: also with rejected rows, and if its budget is used up.",
    ExitCode.JOB_FAILED: "A job failed or was cancelled. A feed run: a product failed.",
    ExitCode.USAGE: "Wrong usage or settings; nothing was sent. A feed: it cannot be read, or too much of it is wrong.",
    ExitCode.REFUSED: "The API refused, or continuing could pay twice.",
    ExitCode.NO_CREDITS: "Not enough credits.",
    ExitCode.TIMEOUT: "The timeout passed; the job keeps running.",
    ExitCode.TROUBLE: "Trouble on this machine, on the network or in the service; trying again can help.",
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C or SIGTERM; jobs keep running.",
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
_OF_THE_DATABASE = "check the space on its disk, its permissions, and whether its server runs"
_ENDED_JOB = (
    "cancelled",
    "failed",
    "job_deleted",
    "moderation",
    "validation",
    "stage_retries",
    "paused",
    "too_many_purchases",
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code that needs most attention.

    Examples:
        >>> worst([ExitCode.DONE, ExitCode.TIMEOUT, ExitCode.JOB_FAILED])
        <ExitCode.JOB_FAILED: 1>
    """
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), ExitCode.DONE)


def exit_of(error: BaseException) -> ExitCode:
    """Return the exit code of an error.

    Examples:
        >>> exit_of(OSError("No space left on device"))
        <ExitCode.TROUBLE: 6>
    """
    return _judged(error)[0]


def next_step(error: BaseException) -> str:
    """Return what to do about an error; '' if its message says it."""
    job_id = getattr(error, "job_id", None)
    advice = _judged(error)[1]
    return advice if job_id is None else advice.replace(" JOB`", f" {job_id}`")


def _judged(error: BaseException) -> tuple[ExitCode, str]:
    from ugen_provider.core.api import errors as api
    from ugen_provider.core.api import polling
    from ugen_provider.core.batch.errors import ExportRefusedError, LeaseLostError, RunRefusedError
    from ugen_provider.core.feeds.errors import FeedError, MappingError
    from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError
    from ugen_provider.core.media.errors import DownloadError

    trouble_if_retryable = ExitCode.TROUBLE if getattr(error, "retryable", False) else ExitCode.REFUSED
    if isinstance(error, api.PurchaseError):
        return _of_a_purchase(error.reason)
    if isinstance(error, RunRefusedError):
        return _of_a_refused_run(error.reason)
    if isinstance(error, ExportRefusedError):
        if error.reason == "shrinks":
            return ExitCode.REFUSED, "`ugen ledger show CATALOG` names the products; --allow-shrink allows it"
        return ExitCode.REFUSED, "give --stored-at with --public-at if the videos are stored, or --format jsonl"
    table: tuple[tuple[type[BaseException], ExitCode, str], ...] = (
        (KeyboardInterrupt, ExitCode.INTERRUPTED, ""),
        (
            FeedError,
            ExitCode.USAGE,
            "correct the feed or its address; `ugen feed check FEED` reads it and buys nothing",
        ),
        (MappingError, ExitCode.USAGE, "correct it; `ugen feed check FEED --mapping FILE` applies it and buys nothing"),
        (api.ConfigError, ExitCode.USAGE, _of_a_setting(error)),
        (api.InvalidRequestError, ExitCode.USAGE, _of_fields(error)),
        (api.InsufficientCreditsError, ExitCode.NO_CREDITS, _of_credits(error)),
        (polling.JobTimeoutError, ExitCode.TIMEOUT, "`ugen jobs wait JOB` waits for it again"),
        (polling.JobPausedError, ExitCode.JOB_FAILED, "`ugen jobs resume JOB` resumes it"),
        (polling.LowQualityError, ExitCode.JOB_FAILED, "the video exists: `ugen jobs download JOB`"),
        (polling.JobCancelledError, ExitCode.JOB_FAILED, "create another one if you still want it"),
        (polling.JobFailedError, ExitCode.JOB_FAILED, _of_a_failed_job(error)),
        (
            api.AuthenticationError,
            ExitCode.REFUSED,
            "`ugen login` stores another key; `ugen doctor` shows which one is in use",
        ),
        (api.PermissionDeniedError, ExitCode.REFUSED, "check what the API key may do: `ugen doctor`"),
        (api.NotFoundError, ExitCode.REFUSED, _of_a_missing_thing(error)),
        (api.ConflictError, ExitCode.REFUSED, f"`ugen jobs get {_job_in(error)}` shows the job's state"),
        (api.RequestValidationError, ExitCode.REFUSED, "correct the named fields"),
        (api.RateLimitError, ExitCode.REFUSED, _of_a_limit(error)),
        (api.ServerError, ExitCode.TROUBLE, "try again in a minute"),
        (api.APIError, trouble_if_retryable, "`ugen doctor` shows the service's answers to this account"),
        (api.ResponseError, trouble_if_retryable, "check the base URL and any proxy: `ugen doctor`"),
        (api.TransportError, ExitCode.TROUBLE, _of_the_network(error)),
        (DownloadError, ExitCode.TROUBLE, "run it again: complete files are not downloaded again"),
        (LeaseLostError, ExitCode.TROUBLE, "another run works on it; run it again later"),
        (
            AttemptSupersededError,
            ExitCode.REFUSED,
            "the newer attempt continues; `ugen jobs wait JOB` waits for its job",
        ),
        (LedgerUnavailableError, ExitCode.TROUBLE, _OF_THE_DATABASE),
        (api.UGenError, trouble_if_retryable, ""),
        (OSError, ExitCode.TROUBLE, _of_a_file(error)),
    )
    for kind, code, advice in table:
        if isinstance(error, kind):
            return code, advice
    # The one other error that a command expects is from the ledger's database.
    return ExitCode.TROUBLE, _OF_THE_DATABASE


def _of_a_setting(error: BaseException) -> str:
    if "no API key" in str(error):
        return "`ugen login` stores a key in a profile; or set UGEN_API_KEY"
    return "`ugen doctor` shows which settings are in use"


def _of_fields(error: BaseException) -> str:
    options = dict.fromkeys(f"--{one.field.replace('_', '-')}" for one in getattr(error, "violations", ()))
    return f"correct {', '.join(options)}; nothing was sent" if options else "nothing was sent"


def _of_credits(error: BaseException) -> str:
    required, available = getattr(error, "required", None), getattr(error, "available", None)
    if required is None or available is None or available >= required:
        return "`ugen credits balance` shows the available credits, `ugen credits estimate` the required ones"
    return f"{required:,} credits are required and {available:,} are available: buy credits, or order fewer segments"


def _of_a_failed_job(error: BaseException) -> str:
    if getattr(error, "retryable", True):
        return "`ugen jobs get JOB` shows why; `ugen jobs retry JOB` runs it again, which reserves credits again"
    return "`ugen jobs get JOB` shows why; the same request would fail again, so change it"


def _job_in(error: BaseException) -> str:
    """Return the job that a request was about."""
    parts = str(getattr(error, "path", "")).strip("/").split("/")
    return parts[1] if len(parts) > 1 and parts[0] == "jobs" else "JOB"


def _of_a_missing_thing(error: BaseException) -> str:
    match str(getattr(error, "path", "")).strip("/").split("/"):
        case ["jobs", _, *_]:
            return "`ugen jobs list` shows the account's jobs; check whether it is the right account"
        case ["models", _]:
            return "`ugen models` lists the models"
        case _:
            return "the service has no such address: check the base URL with `ugen doctor`"


def _of_a_limit(error: BaseException) -> str:
    if (getattr(error, "method", ""), str(getattr(error, "path", "")).strip("/")) == ("POST", "jobs"):
        return "the account's job limit is reached: wait until a job has ended, or give --queue-timeout SECONDS"
    seconds = getattr(error, "retry_after", None)
    return "try again later" if seconds is None else f"try again in {seconds:.0f} s"


def _of_the_network(error: BaseException) -> str:
    said = str(error).lower()
    if "refused" in said:
        is_local = "127.0.0.1" in said or "localhost" in said or "[::1]" in said
        return "nothing listens there: " + ("is `ugen emulator` running?" if is_local else "check the base URL")
    if "name or service" in said or "getaddrinfo" in said or "name resolution" in said or "nodename" in said:
        return "the host's name is unknown: check the base URL and the network"
    if "certificate" in said:
        return "check the certificates: SSL_CERT_FILE names those of your network"
    if isinstance(error, TimeoutError):
        return "try again; `ugen doctor` shows whether the service answers"
    return "check the network and the base URL: `ugen doctor`"


def _of_a_file(error: BaseException) -> str:
    match getattr(error, "errno", None):
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "free space on its disk"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "check its permissions"
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return "check the path"
        case _:
            return "check the path, its permissions and the space on its disk"


def _of_a_purchase(reason: str) -> tuple[ExitCode, str]:
    if reason.startswith("spending_"):
        return ExitCode.REFUSED, "set the profile's `spending`, or UGEN_SPENDING, to `allow`"
    if reason == "over_max_credits":
        return ExitCode.REFUSED, "--max-credits allows more"
    if reason.startswith(_ENDED_JOB):
        return ExitCode.JOB_FAILED, "--regenerate with a new value buys another video"
    return ExitCode.REFUSED, ""


def _of_a_refused_run(reason: str) -> tuple[ExitCode, str]:
    match reason:
        case "max_rejected":
            return ExitCode.USAGE, "`ugen feed check` names the rows; nothing was bought"
        case "max_changed" | "max_gone" | "max_new":
            return ExitCode.USAGE, f"`ugen feed check` names the products; --{reason.replace('_', '-')} allows more"
        case "new_ids":
            return ExitCode.USAGE, "`ugen feed check` names the products; --allow-new-ids allows it"
        case "budget":
            return ExitCode.NO_CREDITS, "a larger --budget allows it"
        case "ledger":
            return ExitCode.TROUBLE, "name another one by --ledger"
        case _:
            return ExitCode.REFUSED, "give --assume-credits"
