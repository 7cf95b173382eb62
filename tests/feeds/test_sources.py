# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  a case is one line, in the letters of its shop
"""Feeds from files, folders, patterns, archives, workbooks, the standard input, tables and databases."""

import datetime as dt
import decimal
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from collections import namedtuple

import duckdb
import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from ugen_provider.cli import main
from ugen_provider.cli.session import Surroundings
from ugen_provider.core.feeds import FeedError, FeedOrder, RejectedRow, SQLQuery, plan_feed, read_feed
from ugen_provider.core.feeds.mapper import FeedOptions

HEADER = "id,title,price,image_link\n"
ROWS = [
    {"id": 1001, "title": "Lamp", "price": 12.5, "image_link": "https://s.example/1.jpg"},
    {"id": 1002, "title": "Mug", "price": None, "image_link": "https://s.example/2.jpg"},
    {"id": None, "title": "Cup", "price": 3.0, "image_link": "https://s.example/3.jpg"},
]


def line(number) -> str:
    return f"{number},Lamp {number},1,https://s.example/{number}.jpg\n"


def ids(source, **options):
    return [row.id for row in read_feed(source, **options) if not isinstance(row, RejectedRow)]


def verdicts(source, **options):
    rows = plan_feed(source, job_defaults={"segment_count": 1}, **options)
    return [(row.product_id, row.fields["product_name"]) if isinstance(row, FeedOrder) else row.column for row in rows]


EXPECTED = [("1001", "Lamp"), ("1002", "Mug"), "id"]


@pytest.fixture
def shards(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / f"part-{number}.csv.gz").write_bytes(gzip.compress((HEADER + line(number) + ",none,,\n").encode()))
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".crc").write_text("x")
    (tmp_path / "README.md").write_text("Exported at night")
    return tmp_path


@pytest.mark.parametrize("how", ["pattern", "folder", "path", "list", "url pattern", "url folder"])
def test_shards_are_one_feed_in_natural_order(shards, how):
    source = {
        "pattern": str(shards / "part-*.csv.gz"),
        "folder": str(shards),
        "path": shards,
        "list": [shards / f"part-{number}.csv.gz" for number in (1, 2, 10)],
        "url pattern": f"file://{shards}/part-*.csv.gz",
        "url folder": f"file://{shards}/",
    }[how]
    assert ids(source) == ["1", "2", "10"]
    bad = [str(row) for row in read_feed(source) if isinstance(row, RejectedRow)]
    assert bad[2].startswith("part-10.csv.gz, line 3, item 2: id is required")


def test_pattern_without_a_file_is_refused(tmp_path):
    with pytest.raises(FeedError, match="no file has this name"):
        ids(str(tmp_path / "part-*.csv"))
    with pytest.raises(FeedError, match="no file has this name"):
        ids(tmp_path)


def test_shard_that_is_broken_ends_the_feed(shards):
    (shards / "part-3.csv.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(FeedError, match=r"part-3\.csv\.gz.*could not be read"):
        ids(shards)


def test_zip_with_notes_and_shards_is_one_feed(tmp_path):
    path = tmp_path / "feed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/b.csv", HEADER + line(2))
        archive.writestr("data/a.csv.gz", gzip.compress((HEADER + line(1)).encode()))
        archive.writestr("__MACOSX/x", "x")
        archive.writestr("LICENSE.txt", "x")
        archive.writestr("photo.png", "x")
    with pytest.raises(FeedError, match="pack one kind"):
        ids(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.csv", HEADER + line(2))
        archive.writestr("a.csv", HEADER + line(1))
        archive.writestr("readme.txt", "x")
        archive.writestr("photo.png", "x")
    assert ids(path) == ["1", "2"]


def test_standard_input_is_a_feed():
    command = ["feed", "check", "-", "--segment-count", "1", "--no-estimate", "--json"]
    result = CliRunner().invoke(
        main, command, input=HEADER + line(1), obj=Surroundings(environ={"HOME": "/nonexistent"})
    )
    assert json.loads(result.stdout)["orders"][0]["product_id"] == "1", result.output


def test_several_files_on_the_command_line_are_one_feed(shards):
    command = ["feed", "check", str(shards / "part-1.csv.gz"), str(shards / "part-2.csv.gz"), "--no-estimate", "--json"]
    result = CliRunner().invoke(main, command, obj=Surroundings(environ={"HOME": "/nonexistent"}))
    found = json.loads(result.stdout)
    assert (found["accepted"], found["rejected"]) == (2, 2)
    assert [row["file"] for row in found["rejected_rows"]] == ["part-1.csv.gz", "part-2.csv.gz"]


def workbook(tmp_path, *sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    path = tmp_path / "feed.bin"
    book.save(path)
    return path


def test_workbook_is_read_from_the_sheet_with_products(tmp_path):
    path = workbook(
        tmp_path,
        [["Notes"], ["nothing here"]],
        [["Export", dt.date(2024, 1, 1)], [], ["id", "title", "image_link", "image_link"],
         [1001, "Lamp", None, "https://s.example/1.jpg"], [], [1002.0, "Mug", "https://s.example/2.jpg"], [None, "Cup"]],
    )  # fmt: skip
    assert verdicts(path) == EXPECTED
    with path.open("rb") as file:
        assert verdicts(io.BytesIO(file.read())) == EXPECTED
    (bad,) = [row for row in read_feed(path) if isinstance(row, RejectedRow)]
    assert bad.line == 7


def test_workbook_without_products_is_refused(tmp_path):
    with pytest.raises(FeedError, match=r"no sheet with a column for the id.*Colour, Size"):
        ids(workbook(tmp_path, [["Colour", "Size"], ["red", "S"]]))


def test_workbook_that_is_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<a/>")
        archive.writestr("xl/workbook.xml", "A" * (80 << 20))
    with pytest.raises(FeedError, match="more than 200 times its size"):
        ids(path)


def test_parquet_that_is_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.parquet"
    titles = pa.DictionaryArray.from_arrays([0] * 4000, ["A" * (1 << 20)])
    table = pa.table({"id": [str(n) for n in range(4000)], "title": titles})
    pa.parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FeedError, match="more than 200 times its size"):
        list(read_feed(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # decoded it has 4 GB


def test_parquet_with_lists_and_repeated_texts_is_a_feed(tmp_path):
    path = tmp_path / "feed.parquet"
    rows = [
        {"id": n, "title": "Lamp", "brand": "Acme" * 100, "images": [f"https://s.example/{n}.jpg", "x"]}
        for n in range(3000)
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    assert len(verdicts(path)) == 3000
    assert verdicts(path)[2999] == ("2999", "Lamp")


Row = namedtuple("Row", ["id", "title", "price", "image_link"])  # noqa: PYI024


class OnlyStream:
    """A table that exports an Arrow stream, and has nothing else."""

    def __init__(self, table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class OnlyInterchange:
    """A table of the data frame interchange protocol, and nothing else."""

    def __init__(self, table) -> None:
        self._table = table

    def __dataframe__(self, **options):
        return self._table.__dataframe__(**options)


TABLES = {
    "list": lambda: ROWS,
    "generator": lambda: (row for row in ROWS),
    "named tuples": lambda: [Row(**row) for row in ROWS],
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
    "lazy polars": lambda: pl.DataFrame(ROWS).lazy(),
    "arrow table": lambda: pa.Table.from_pylist(ROWS),
    "arrow batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "arrow reader": lambda: pa.Table.from_pylist(ROWS).to_reader(),
    "arrow stream": lambda: OnlyStream(pa.Table.from_pylist(ROWS)),
    "interchange": lambda: OnlyInterchange(pa.Table.from_pylist(ROWS)),
    "duckdb": lambda: duckdb.from_arrow(pa.Table.from_pylist(ROWS)),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_table_is_a_feed(make):
    assert verdicts(make()) == EXPECTED


def test_row_that_is_no_mapping_is_rejected():
    assert verdicts([ROWS[0], "text", 7]) == [("1001", "Lamp"), "row", "row"]


@pytest.mark.parametrize(
    "source", [7, object(), {"id": 1}, pd.Series([1, 2])], ids=lambda source: type(source).__name__
)
def test_source_of_another_kind_is_refused(source):
    with pytest.raises(FeedError):
        verdicts(source)


def test_values_of_a_database_are_texts():
    row = {"id": decimal.Decimal("1001.0"), "title": b"Lamp", "image_link": memoryview(b"https://s.example/1.jpg"),
           "price": decimal.Decimal("12.50"), "day": dt.date(2024, 1, 1), "nothing": float("nan")}  # fmt: skip
    ((product_id, name),) = verdicts([row])
    assert (product_id, name) == ("1001", "Lamp")


def fill(url) -> None:
    engine = sa.create_engine(url)
    table = sa.Table(
        "product", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("title", sa.String(50)),
        sa.Column("price", sa.Numeric(10, 2)), sa.Column("image_link", sa.String(200)),
    )  # fmt: skip
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(sa.insert(table), ROWS)
    engine.dispose()


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def database(request, tmp_path):
    if request.param == "postgresql":
        from tests.databases import postgres_url

        url = postgres_url()
        if url is None:
            pytest.skip("no PostgreSQL answers")
        name = f"feeds_{os.getpid()}"
        admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
        made = sa.engine.make_url(url).set(database=name).render_as_string(hide_password=False)
        fill(made)
        yield made
        with admin.connect() as connection:
            connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()
        return
    url = f"{request.param}:///{tmp_path / 'shop.db'}"
    fill(url)
    yield url


def test_query_is_a_feed(database):
    query = "SELECT id, title, price, image_link FROM product ORDER BY coalesce(id, 9999)"
    assert verdicts(SQLQuery(database, query)) == EXPECTED
    assert verdicts(database, options=FeedOptions(query=query)) == EXPECTED
    some = SQLQuery(database, "SELECT * FROM product WHERE id >= :least", {"least": 1002})
    assert verdicts(some) == [("1002", "Mug")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT a FROM nowhere", "the query cannot be read: .*nowhere"),
        ("SELECT 1 AS colour", "no column for id"),
    ],
)
def test_query_that_gives_no_feed_is_refused(database, query, message):
    with pytest.raises(FeedError, match=f"(?s){message}") as caught:
        verdicts(SQLQuery(database, query))
    assert "://postgres@" not in str(caught.value)


def test_database_without_a_query_is_refused():
    with pytest.raises(FeedError, match="is a database; name the query"):
        verdicts("sqlite:///shop.db")


def test_query_on_the_command_line_is_a_feed(tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    fill(url)
    command = ["feed", "check", url, "--query", "SELECT * FROM product", "--no-estimate", "--json"]
    result = CliRunner().invoke(main, command, obj=Surroundings(environ={"HOME": "/nonexistent"}))
    assert json.loads(result.stdout)["accepted"] == 2, result.output


def test_tables_import_no_library_that_is_not_there():
    code = (
        "import sys; from ugen_provider.feeds import plan_feed; "
        "list(plan_feed([{'id': 1, 'title': 'a', 'image_link': 'https://s.example/a'}], job_defaults={'segment_count': 1}));"
        "print(sorted({'pandas', 'polars', 'pyarrow', 'duckdb', 'openpyxl', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("kind", ["rows", "csv", "sql"])
def test_memory_does_not_grow_with_rows(kind, tmp_path):
    import tracemalloc

    def source(count):
        if kind == "rows":
            return ({"id": n, "title": "Lamp", "image_link": "https://s.example/a.jpg"} for n in range(count))
        if kind == "csv":
            return io.BytesIO((HEADER + "".join(map(line, range(count)))).encode())
        query = f"WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {count}) "
        return SQLQuery(
            "sqlite://", query + "SELECT id, 'Lamp' AS title, 'https://s.example/a.jpg' AS image_link FROM n"
        )

    def peak(count):
        given = source(count)
        tracemalloc.start()
        try:
            assert sum(1 for _ in plan_feed(given, job_defaults={"segment_count": 1})) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(20_000) - peak(2_000) < 1 << 20
