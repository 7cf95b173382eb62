# SPDX-License-Identifier: Apache-2.0
"""A check and a run give every row the same verdict, on SQLite and on PostgreSQL."""

import itertools
import json
import uuid

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.databases import postgres_url
from ugen_provider.core.batch import runs
from ugen_provider.core.batch.planner import Planner
from ugen_provider.core.batch.preview import check_feed
from ugen_provider.core.batch.spec import PlanOptions
from ugen_provider.core.feeds import FeedError, FeedMapping
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.store import Ledger

DEFAULTS = {"segment_count": 1}
TEXT = st.text(st.characters(blacklist_categories=()), max_size=12) | st.sampled_from(
    ["", "1001.0", "\x00", "\ud800", "NULL", "x" * 600, "a\x00b", "e\u0301", "é", "1001", "%s", "'; --"]
)
VALUE = TEXT | st.none() | st.integers() | st.floats() | st.lists(TEXT, max_size=2)
ROW = st.fixed_dictionaries(
    {"id": VALUE, "title": VALUE, "image_link": st.just("https://s.example/1.jpg") | VALUE},
    optional={"description": VALUE, "status": st.sampled_from(["draft", "active"]), "price": VALUE, "brand": TEXT,
              "item_group_id": TEXT, "additional_image_link": VALUE},
)  # fmt: skip
MAPPINGS = st.sampled_from(
    [
        None,
        {"filters": ["price < 100 or brand is empty"]},
        {"order_by": "price desc", "limit": 3},
        {"group_by": "item_group_id"},
        {"columns": {"custom_script": "brand"}},
        {"templates": {"cta_text": "From {brand}"}},
        {"id": "{brand}-{id}"},
        {"ignore_changes": ["cta_text"], "templates": {"cta_text": "{price}"}},
    ]
)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory):
    """A ledger on each database that is there."""
    opened = [Ledger.init(str(tmp_path_factory.mktemp("ledgers") / "ledger.db"), allow_ephemeral=True)]
    url, name = postgres_url(), f"ugen_test_{uuid.uuid4().hex[:12]}"
    if url is not None:
        admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        opened.append(Ledger.init(sa.engine.make_url(url).set(database=name).render_as_string(hide_password=False)))
    yield opened
    for ledger in opened:
        ledger.close()
    if url is not None:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


NUMBERS = itertools.count()


def planned(ledger, source, mapping):
    """The verdicts of a run's plan: product ids with their requests, and the rejected rows."""
    catalogue = ledger.catalogue(f"shop-{next(NUMBERS)}")
    run, _ = runs.join(ledger, catalogue, "monday", owner="one", budget=None)
    Planner(ledger, run, PlanOptions(mapping=mapping)).plan(source, job_defaults=DEFAULTS)
    item, rejected = schema.item, schema.rejected
    with ledger.engine.connect() as connection:
        bought = connection.execute(sa.select(item.c.product_id, item.c.body).where(item.c.run == run.id))
        refused = connection.execute(sa.select(rejected.c.item, rejected.c.rule).where(rejected.c.run == run.id))
        return {row.product_id: json.loads(row.body) for row in bought}, {(row.item, row.rule) for row in refused}


def checked(source, mapping):
    with check_feed(source, job_defaults=DEFAULTS, plan=PlanOptions(mapping=mapping)) as check:
        for _ in check.rows:
            pass
        orders = {order["product_id"]: order["request"] for order in check.orders()}
        return orders, {(row["item"], row["rule"]) for row in check.rejected_rows()}


@settings(
    max_examples=120, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(ROW, min_size=1, max_size=8), written=MAPPINGS)
def test_check_and_run_agree_on_every_row(ledgers, rows, written):
    mapping = FeedMapping.from_dict(written) if written is not None else None
    expected = verdict_of(lambda: checked(rows, mapping))
    for ledger in ledgers:
        assert verdict_of(lambda ledger=ledger: planned(ledger, rows, mapping)) == expected


def verdict_of(work):
    """The verdicts, or the message of a feed that cannot be read."""
    try:
        return work()
    except FeedError as error:
        return str(error)
