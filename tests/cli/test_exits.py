# SPDX-License-Identifier: Apache-2.0
"""The table of exit codes: every error of the tree has one, and the documents say the same as the code."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from ugen_provider.cli import main
from ugen_provider.cli.exits import MEANINGS, ExitCode, exit_of, next_step, worst
from ugen_provider.core.api import errors as api
from ugen_provider.core.api import polling
from ugen_provider.core.batch.errors import RunRefusedError
from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.media.errors import DownloadError

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
HTTP = {"method": "GET", "path": "/jobs", "status": 400}
SENT = {"method": "GET", "path": "/jobs", "maybe_sent": True}


def purchase(reason):
    return api.PurchaseError("no", scope="s", reason=reason)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (api.ConfigError("no key"), 2),
        (api.InvalidRequestError([]), 2),
        (api.BadRequestError("no", **HTTP), 3),
        (api.AuthenticationError("no", **HTTP), 3),
        (api.PermissionDeniedError("no", **HTTP), 3),
        (api.NotFoundError("no", **HTTP), 3),
        (api.ConflictError("no", **HTTP), 3),
        (api.RequestValidationError("no", **HTTP), 3),
        (api.RateLimitError("no", **HTTP), 3),
        (api.InsufficientCreditsError("no", **HTTP), 4),
        (api.ServerError("no", **HTTP), 6),
        (api.ResponseError("no", **HTTP), 6),
        (api.TransportError("no", **SENT), 6),
        (api.TransportTimeoutError("no", **SENT), 6),
        (polling.JobFailedError("no", job_id="j"), 1),
        (polling.JobCancelledError("no", job_id="j"), 1),
        (polling.JobPausedError("no", job_id="j"), 1),
        (polling.LowQualityError("no", job_id="j"), 1),
        (polling.JobTimeoutError("no", job_id="j"), 5),
        (purchase("cancelled_by_somebody"), 1),
        (purchase("moderation"), 1),
        (purchase("spending_off"), 3),
        (purchase("undecidable"), 3),
        (FeedError("no", source="f"), 2),
        (RunRefusedError("no", reason="max_rejected"), 2),
        (RunRefusedError("no", reason="max_changed"), 2),
        (RunRefusedError("no", reason="budget"), 4),
        (RunRefusedError("no", reason="estimate"), 3),
        (RunRefusedError("no", reason="ledger"), 6),
        (LedgerUnavailableError("gone", ledger="postgresql://db/shop"), 6),
        (DownloadError("no", reason="cut_short"), 6),
        (OSError("disk full"), 6),
        (OperationalError("INSERT", {}, Exception("database or disk is full")), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_code(error, code):
    assert exit_of(error) == code


def subclasses(kind):
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def made(kind, *, retryable):
    """Make an error of a class without its arguments."""
    error = kind.__new__(kind, "no")
    vars(error).update(retryable=retryable, reason="r", job_id="j", which="run", ledger="l", violations=())
    return error


def test_every_error_has_an_exit_code_and_follows_retryable():
    """An error without a meaning of its own is trouble exactly if the same call can succeed later."""
    tree = [kind for kind in subclasses(api.UGenError) if kind.__module__.startswith("ugen_provider.")]
    assert len(tree) > 25
    for kind in tree:
        codes = {retryable: exit_of(made(kind, retryable=retryable)) for retryable in (True, False)}
        assert ExitCode.DONE not in codes.values()
        if len(set(codes.values())) > 1:
            assert codes == {True: ExitCode.TROUBLE, False: ExitCode.REFUSED}, kind


@pytest.mark.parametrize(
    ("status", "code"), [(408, 6), (425, 6), (460, 6), (499, 6), (500, 6), (503, 6), (405, 3), (410, 3), (413, 3)]
)
def test_status_without_a_class_is_judged_by_whether_it_passes(status, code):
    kind = api.api_error_type(status)
    assert exit_of(kind("no", method="GET", path="/jobs", status=status)) == code
    assert exit_of(api.ResponseError("no", method="GET", path="/jobs", status=302)) == ExitCode.REFUSED


def test_every_error_that_a_command_meets_says_what_to_do():
    faults = [api.NotFoundError("no", **HTTP), api.TransportError("no", **SENT), FeedError("no", source="f"), OSError()]
    assert all(next_step(error) for error in faults)


def test_of_several_the_one_that_needs_most_attention_counts():
    codes = list(ExitCode)
    assert worst([]) is ExitCode.DONE
    assert worst(codes) is ExitCode.INTERRUPTED
    assert worst([ExitCode.TROUBLE, ExitCode.TIMEOUT, ExitCode.JOB_FAILED]) is ExitCode.JOB_FAILED
    assert {worst([code]) for code in codes} == set(codes)


def test_help_and_documents_hold_the_table():
    assert set(MEANINGS) == set(ExitCode)
    said = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert rows == {str(int(code)): meaning for code, meaning in MEANINGS.items()}
    for code, meaning in MEANINGS.items():
        assert f"{int(code)} {meaning}" in said
