# SPDX-License-Identifier: Apache-2.0
"""What the command line reads of a ledger beside its entries and reports."""

from __future__ import annotations

from dataclasses import dataclass

import click
import sqlalchemy as sa

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.plans import Run
from ugen_provider.core.batch.runs import RunningJob, running_jobs

ledger_option = click.option(
    "--ledger",
    metavar="PATH|URL",
    help="A SQLite file or a PostgreSQL URL; else UGEN_LEDGER, the profile's, or one in the user's data folder.",
)


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run, as a person looks at it.

    Attributes:
        run: To ask for its report.
        created_at: Seconds since the epoch.
        state: `planning`, `buying` or `done`.
    """

    run: Run
    created_at: float
    state: str


def known_runs(ledger: Ledger, catalogue: str, *, namespace: str) -> list[KnownRun]:
    """All runs of a catalogue, the newest first.

    Raises:
        ConfigError: The catalogue is not in the ledger.
    """
    known = ledger.find_catalogue(catalogue, namespace=namespace)
    table = schema.run
    query = sa.select(table).where(table.c.catalogue_id == known.id).order_by(table.c.id.desc())
    rows = ledger.read(lambda connection: connection.execute(query).all())
    return [KnownRun(Run(row.id, known, row.run_id, row.owner or ""), row.created_at, row.state) for row in rows]


def left_running(ledger: Ledger, catalogue: str, run_id: str, *, namespace: str) -> list[RunningJob]:
    """The jobs that a stopped run left running; none where the catalogue is not even known."""
    try:
        found = ledger.find_catalogue(catalogue, namespace=namespace)
    except ConfigError:
        return []
    return running_jobs(ledger, found, run_id)
