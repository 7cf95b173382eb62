# SPDX-License-Identifier: Apache-2.0
"""Errors of the ledger. Imports no SQLAlchemy, so that catching one costs nothing."""

from __future__ import annotations

from ugen_provider.core.api.errors import UGenError


class LedgerUnavailableError(UGenError):
    """The database of the ledger does not answer, or accepts no writes at the moment.

    Nothing is lost: every purchase is in the ledger, or is found again by the idempotency key that was written there
    before the request was sent.

    Args:
        trouble: The database's own words.
        ledger: Its address, without password and options; '' where it is not known.
        run_id: The feed run that ended with this error, if it was one.
    """

    retryable = True

    def __init__(self, trouble: str, *, ledger: str = "", run_id: str | None = None) -> None:
        self.trouble = trouble
        self.ledger = ledger
        self.run_id = run_id
        message = f"the ledger's database: {trouble.rstrip('.')}" + (f" ({ledger})" if ledger else "")
        if run_id is not None:
            message += f"; nothing is lost: start the run again with the same run_id, {run_id!r}, to continue it"
        super().__init__(message)

    def of_run(self, run_id: str) -> LedgerUnavailableError:
        """Return the same error with the name of the feed run that it ended."""
        return LedgerUnavailableError(self.trouble, ledger=self.ledger, run_id=run_id)


class AttemptSupersededError(UGenError):
    """A newer attempt works on this order; this one sends no request that could change a job.

    Attributes:
        order_key: The order.
        attempt: The attempt that was refused.
        newest: The attempt that owns the order now.
        job_id: The order's job, if it is known.
    """

    retryable = False

    def __init__(self, *, order_key: str, attempt: str, newest: str, job_id: str | None = None) -> None:
        self.order_key = order_key
        self.attempt = attempt
        self.newest = newest
        self.job_id = job_id
        about = f"job {job_id}" if job_id else "its job"
        if newest == attempt:
            super().__init__(f"order {order_key}: the record of this attempt was deleted; it leaves {about} as it is")
            return
        super().__init__(
            f"order {order_key}: attempt {newest!r} is newer than {attempt!r} and works on this order; "
            f"this attempt leaves {about} to it"
        )
