# SPDX-License-Identifier: Apache-2.0
"""`ugen credits` and `ugen models`: what the account has, what things cost, what there is. All free."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from ugen_provider.cli.fields import field_options
from ugen_provider.cli.frame import command
from ugen_provider.cli.jobs.views import time_of
from ugen_provider.cli.printing import Listing, Sheet
from ugen_provider.cli.session import Session
from ugen_provider.core.api.models import CreateJob, Model, Transaction

_SAMPLE = {"product_name": "Estimate only", "product_image_url": "https://example.com/estimate.jpg"}


@click.group("credits")
def credits_group() -> None:
    """Balance, estimates, transactions. Free."""


@command("balance", examples=("ugen credits balance", "ugen credits balance --json | jq .available_credits"))
def balance_command(session: Session) -> None:
    """Show the credits of the account."""
    with session.client() as client:
        balance = client.credits.balance()
    facts = [
        ("available", f"{balance.available_credits:,}"),
        ("reserved", f"{balance.credit_reserved:,}"),
        ("balance", f"{balance.credit_balance:,}"),
    ]
    session.out.show(Sheet(facts, data=balance.model_dump(mode="json")))


@command(
    "estimate", examples=("ugen credits estimate --segment-count 3", "ugen credits estimate --segment-count 3 --json")
)
@field_options()
def estimate_command(session: Session, *, fields: dict[str, Any]) -> None:
    """Tell what a video would cost. Only the fields that cost are needed, such as --segment-count."""
    job = CreateJob.model_validate({**_SAMPLE, **fields})
    with session.client() as client:
        estimate = client.credits.estimate(job)
    parts = estimate.breakdown if isinstance(estimate.breakdown, dict) else {}
    facts = [("credits", f"{estimate.total_credits:,}"), *((str(name), str(value)) for name, value in parts.items())]
    session.out.show(Sheet(facts, data=estimate.model_dump(mode="json")))


def transactions_listing(rows: list[Transaction]) -> Listing:
    """Movements of credits."""
    cells = [
        (
            row.transaction_id or "",
            row.type,
            f"{row.amount:+,}",
            "" if row.balance_after is None else f"{row.balance_after:,}",
            row.job_id or "",
            time_of(row.created_at),
        )
        for row in rows
    ]
    columns = ("TRANSACTION", "TYPE", "CREDITS", "BALANCE", "JOB", "WHEN")
    return Listing(columns, cells, data=[row.model_dump(mode="json") for row in rows], nothing="No transactions.")


@command("transactions", examples=("ugen credits transactions --job JOB", "ugen credits transactions --all --json"))
@click.option("--job", "job_id", metavar="JOB", help="Only those of this job.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most that are shown.")
@click.option("--all", "everything", is_flag=True, help="All of them, over all pages.")
def transactions_command(session: Session, *, job_id: str | None, limit: int, everything: bool) -> None:
    """List the movements of credits."""
    with session.client() as client:
        found = list(islice(client.credits.transactions(job_id=job_id), None if everything else limit + 1))
    shown = found if everything else found[:limit]
    session.out.show(transactions_listing(shown))
    if len(shown) < len(found):
        session.out.note(f"There are more than {limit}: --limit or --all shows them.")


for _command in (balance_command, estimate_command, transactions_command):
    credits_group.add_command(_command)


def model_sheet(model: Model) -> Sheet:
    """One model."""
    told = model.model_dump(mode="json")
    abilities = model.capabilities if isinstance(model.capabilities, dict) else {}
    facts = [
        ("model", model.model_id),
        ("name", model.name or ""),
        ("status", model.status or ""),
        ("default variant", model.default_variant or ""),
        *((str(name).replace("_", " "), str(value)) for name, value in abilities.items()),
    ]
    return Sheet(facts, data=told)


@command("models", examples=("ugen models", "ugen models kling3_std"))
@click.argument("model_id", metavar="[MODEL]", required=False)
def models_command(session: Session, *, model_id: str | None) -> None:
    """Show the video models on offer, or one of them."""
    with session.client() as client:
        if model_id is not None:
            session.out.show(model_sheet(client.models.get(model_id)))
            return
        models = client.models.list()
    rows = [(model.model_id, model.name or "", model.status or "", model.default_variant or "") for model in models]
    data = [model.model_dump(mode="json") for model in models]
    session.out.show(Listing(("MODEL", "NAME", "STATUS", "DEFAULT VARIANT"), rows, data=data, nothing="No models."))
