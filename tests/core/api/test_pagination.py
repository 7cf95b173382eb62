# SPDX-License-Identifier: Apache-2.0
"""Lists in every shape that a service could give them: read whole, or an error that says that they were not."""

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.api.test_client import LAMP, Both
from ugen_provider import APIError, ResponseError
from ugen_provider.core.api import endpoints
from ugen_provider.core.api.pagination import PageReader, read_page

BASE = "http://127.0.0.1:1/api/v1"


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


class Shop:
    """Answers `GET /jobs` from rows of its own, in a shape and with a page size of its own."""

    def __init__(self, rows, shape, *, most=None, before=lambda rows, number: None):
        self.rows = rows
        self.shape = shape
        self.most = most
        self.asked = []
        self._before = before

    def __call__(self, request, answer):
        if request.method != "GET" or not request.path.endswith(("/jobs", "/transactions")):
            return answer()
        self._before(self.rows, len(self.asked))
        query = dict(httpx.QueryParams(request.query))
        self.asked.append(query)
        size = min(int(query["page_size"]), self.most or 10_000)
        start = self._start(query, size)
        part = self.rows[start : start + size]
        body = self.shape(self.rows, part, start, size, query)
        return body if isinstance(body, httpx.Response) else httpx.Response(200, content=json.dumps(body).encode())

    @staticmethod
    def _start(query, size):
        for name in ("cursor", "after", "page_token"):
            if name in query:
                return int(query[name])
        return (int(query.get("page", "1")) - 1) * size


def rows_of(count):
    return [{"job_id": f"job-{number}", "status": "completed"} for number in range(count)]


def next_start(rows, start, size):
    return start + size if start + size < len(rows) else None


def link(start, size):
    return None if start is None else f"https://other.example/jobs?page={start // size + 1}"


def beyond(status):
    return lambda rows, part, start, size, query: part or httpx.Response(status, content=b"{}")


PROVEN = {
    "array": lambda rows, part, start, size, query: part,
    "items": lambda rows, part, start, size, query: {"items": part},
    "data": lambda rows, part, start, size, query: {"data": part, "object": "list"},
    "documented": lambda rows, part, start, size, query: {
        "items": part,
        "total": len(rows),
        "page": start // size + 1,
        "page_size": size,
        "total_pages": -(-len(rows) // size),
    },
    "documented, asked size echoed": lambda rows, part, start, size, query: {
        "items": part,
        "total": len(rows),
        "page": start // size + 1,
        "page_size": int(query["page_size"]),
        "total_pages": -(-len(rows) // int(query["page_size"])),
    },
    "total": lambda rows, part, start, size, query: {"items": part, "total": len(rows)},
    "total as text": lambda rows, part, start, size, query: {"items": part, "total_count": str(len(rows))},
    "total pages": lambda rows, part, start, size, query: {"items": part, "total_pages": -(-len(rows) // size)},
    "nested": lambda rows, part, start, size, query: {"data": part, "pagination": {"total": len(rows)}},
    "has_more": lambda rows, part, start, size, query: {"data": part, "has_more": start + size < len(rows)},
    "next link": lambda rows, part, start, size, query: {
        "results": part,
        "count": len(part),
        "next": link(next_start(rows, start, size), size),
    },
    "links": lambda rows, part, start, size, query: {
        "data": part,
        "links": {"self": "/jobs", "next": link(next_start(rows, start, size), size)},
    },
    "links without next": lambda rows, part, start, size, query: {
        "data": part,
        "_links": {"self": {"href": "/jobs"}}
        | ({"next": {"href": link(next_start(rows, start, size), size)}} if next_start(rows, start, size) else {}),
    },
    "next page": lambda rows, part, start, size, query: {
        "items": part,
        "next_page": start // size + 2 if start + size < len(rows) else None,
    },
    "cursor": lambda rows, part, start, size, query: {
        "items": part,
        "next_cursor": next_start(rows, start, size) and str(next_start(rows, start, size)),
    },
    "page token": lambda rows, part, start, size, query: {
        "items": part,
        "next_page_token": str(next_start(rows, start, size) or ""),
    },
    "page info": lambda rows, part, start, size, query: {
        "items": part,
        "page_info": {"has_next_page": start + size < len(rows), "end_cursor": str(start + len(part))},
    },
}
UNPROVEN = {
    "page ignored, array": lambda rows, part, start, size, query: rows[:size],
    "page ignored, items": lambda rows, part, start, size, query: {"items": rows[:size]},
    "page ignored, total": lambda rows, part, start, size, query: {"items": rows[:size], "total": len(rows) + 1},
    "page ignored, has_more": lambda rows, part, start, size, query: {"items": rows[:size], "has_more": True},
    "cursor ignored": lambda rows, part, start, size, query: {"items": rows[:size], "next_cursor": "7"},
    "ends too early": lambda rows, part, start, size, query: {"items": part[:-1], "total": len(rows)},
    "404 beyond": beyond(404),
    "422 beyond": beyond(422),
    "empty but more": lambda rows, part, start, size, query: {"items": part, "has_more": True},
}


@pytest.mark.parametrize("shape", PROVEN)
@pytest.mark.parametrize("most", [None, 20, 1], ids=lambda most: f"most={most}")
@pytest.mark.parametrize("count", [0, 1, 20, 45, 100, 101, 240])
def test_a_list_is_read_whole_in_each_shape(call, local, shape, most, count):
    count = min(count, 45) if most == 1 else count
    shop = local.transport.meddle = Shop(rows_of(count), PROVEN[shape], most=most)
    assert [job.job_id for job in call("jobs.list")] == [row["job_id"] for row in shop.rows]
    scan = call("jobs.scan")
    assert (len(scan.jobs), scan.complete, scan.repeated, scan.why) == (count, True, False, "")
    assert local.requests("POST") == 0


@pytest.mark.parametrize("shape", UNPROVEN)
@pytest.mark.parametrize("most", [None, 20], ids=lambda most: f"most={most}")
def test_a_list_that_proves_nothing_is_an_error(call, local, shape, most):
    local.transport.meddle = Shop(rows_of(45), UNPROVEN[shape], most=most)
    with pytest.raises(ResponseError, match="not proven to be complete"):
        call("jobs.list")
    scan = call("jobs.scan")
    assert not scan.complete
    assert scan.why
    assert scan.jobs


@pytest.mark.parametrize("shape", PROVEN)
def test_a_list_that_grows_at_its_head_shows_what_there_was(call, local, shape):
    rows = rows_of(45)

    def grow(rows, number):
        if number in {1, 2}:
            rows.insert(0, {"job_id": f"new-{number}", "status": "pending"})

    local.transport.meddle = Shop(rows, PROVEN[shape], most=20, before=grow)
    scan = call("jobs.scan")
    assert scan.complete
    assert {f"job-{number}" for number in range(45)} <= {job.job_id for job in scan.jobs}
    assert scan.repeated


def test_a_list_that_shrinks_is_read_again(call, local):
    """Between two pages an entry moves up, on to the page that was read already."""
    local.transport.meddle = Shop(
        rows_of(45), PROVEN["total"], most=20, before=lambda rows, number: rows.pop(0) if number == 1 else None
    )
    assert {f"job-{number}" for number in range(1, 45)} <= {job.job_id for job in call("jobs.list")}


def test_a_list_that_shrinks_for_ever_is_an_error(call, local):
    local.transport.meddle = Shop(rows_of(200), PROVEN["total"], most=20, before=lambda rows, number: rows.pop(0))
    with pytest.raises(ResponseError, match="shorter while it was read") as caught:
        call("jobs.list")
    assert caught.value.retryable


def test_a_list_that_refuses_its_first_page_is_that_error(call, local):
    local.transport.meddle = Shop([], beyond(404))
    for name in ("jobs.list", "jobs.scan"):
        with pytest.raises(APIError):
            call(name)


ODD = {
    "number": 7,
    "null": None,
    "text": "job-x",
    "array": [],
    "no id": {"status": "completed"},
    "id is an object": {"job_id": {"value": 3}, "status": "completed"},
}


@pytest.mark.parametrize("entry", ODD)
@pytest.mark.parametrize("most", [None, 20], ids=lambda most: f"most={most}")
def test_an_odd_entry_never_hides_the_others(call, local, caplog, entry, most):
    """A scan, on which purchases are built, then proves nothing; a list shows what there is."""
    shape = {
        "array": lambda rows, part, start, size, query: [*part, ODD[entry]] if part else part,
        "total": lambda rows, part, start, size, query: {"items": [*part, ODD[entry]] if part else part},
    }
    for one in shape.values():
        local.transport.meddle = Shop(rows_of(45), one, most=most)
        assert [job.job_id for job in call("jobs.list")] == [f"job-{number}" for number in range(45)]
        assert "cannot be read" in caplog.text
        scan = call("jobs.scan")
        assert (len(scan.jobs), scan.complete) == (45, False)
        assert "cannot be read" in scan.why


def test_a_scan_ends_at_the_job_it_searches(call, local):
    shop = local.transport.meddle = Shop(rows_of(300), PROVEN["documented"])
    scan = call("jobs.scan", until=lambda job: job.job_id == "job-120")
    assert (scan.found.job_id, scan.complete, scan.pages, len(shop.asked)) == ("job-120", False, 2, 2)


def test_a_scan_skips_older_jobs_and_keeps_undated_ones(call, local):
    rows = [
        {"job_id": "a", "created_at": "2026-01-02T00:00:00Z"},
        {"job_id": "b", "created_at": "2026-01-01T00:00:00Z"},
        {"job_id": "c"},
    ]
    local.transport.meddle = Shop(rows, PROVEN["array"])
    scan = call("jobs.scan", created_since=1767312000.0)  # 2026-01-02
    assert [job.job_id for job in scan.jobs] == ["a", "c"]
    assert scan.complete


def test_a_next_link_never_leads_to_another_host(call, local):
    shop = local.transport.meddle = Shop(rows_of(45), PROVEN["next link"], most=20)
    call("jobs.list", status="completed")
    assert [query.get("page") for query in shop.asked] == ["1", "2", "3"]
    assert {query["status"] for query in shop.asked} == {"completed"}


@pytest.mark.parametrize("shape", PROVEN)
def test_transactions_are_read_whole(call, local, shape):
    rows = [{"id": f"t-{number}", "type": "reserve", "amount": -1} for number in range(45)]
    local.transport.meddle = Shop(rows, PROVEN[shape], most=20)
    assert len(call("credits.transactions")) == 45


def test_transactions_of_another_job_are_passed_over(call, local):
    rows = [{"id": f"t-{number}", "type": "reserve", "amount": -1, "job_id": "ab"[number % 2]} for number in range(45)]
    local.transport.meddle = Shop(rows, PROVEN["total"], most=20)
    assert {row.job_id for row in call("credits.transactions", job_id="a")} == {"a"}


def test_equal_transactions_without_an_id_are_all_counted(call, local):
    rows = [{"type": "reserve", "amount": -1}] * 30
    local.transport.meddle = Shop(rows, PROVEN["total"])
    assert len(call("credits.transactions")) == 30


@pytest.mark.parametrize("reading", [{"list_shape": "array"}, {"list_order": "oldest"}, {"list_items": "full"}])
def test_the_emulator_s_lists_are_read_whole(call, local, reading):
    local.set(**reading)
    with local.client() as client:
        ids = {client.jobs.create(LAMP).job_id for _ in range(101)}
    assert {job.job_id for job in call("jobs.list")} == ids


# One page.


@pytest.mark.parametrize(
    ("body", "page", "ends"),
    [
        ([{"id": 1}], 1, None),
        ([{"id": 1}] * 20, 1, None),
        ([], 1, True),
        ({"items": []}, 3, True),
        ({"items": [{"id": 1}]}, 1, None),
        ({"items": [{"id": 1}], "total": 1}, 1, True),
        ({"items": [{"id": 1}], "total": 2}, 1, False),
        ({"items": [], "total": 2}, 1, False),
        ({"items": [{"id": 1}], "total": 2}, 2, None),
        ({"items": [{"id": 1}], "total_pages": 2}, 2, True),
        ({"items": [{"id": 1}], "total_pages": 3}, 2, False),
        ({"items": [{"id": 1}], "total": 45, "total_pages": 1}, 1, False),
        ({"items": [{"id": 1}], "has_more": False}, 1, True),
        ({"items": [{"id": 1}], "has_more": True}, 1, False),
        ({"items": [], "has_more": True}, 1, False),
        ({"items": [{"id": 1}], "has_more": False, "total": 45}, 1, False),
        ({"items": [{"id": 1}], "next": None}, 1, True),
        ({"items": [{"id": 1}], "next": "/jobs?page=2"}, 1, False),
        ({"items": [{"id": 1}], "next_cursor": ""}, 1, True),
        ({"items": [{"id": 1}], "links": {}}, 1, None),
        ({"items": [{"id": 1}], "links": {"self": "/jobs"}}, 1, True),
        ({"items": [{"id": 1}], "total": True}, 1, None),
        ({"items": [{"id": 1}], "total": -1}, 1, None),
        ({"items": [{"id": 1}], "end_cursor": "x"}, 1, None),
    ],
)
def test_a_page_ends_a_list_only_where_it_proves_it(body, page, ends):
    read = read_page(body, page=page, page_size=20)
    assert read.ends is ends
    assert read.more is (ends is not True)


@given(
    rows=st.lists(st.integers(0, 30), max_size=60, unique=True),
    size=st.integers(1, 25),
    total=st.sampled_from(["none", "right", "wrong"]),
)
def test_a_reader_is_complete_only_if_it_saw_all(rows, size, total):
    reader = PageReader(id_of=lambda item: item["id"])
    seen, number = [], 1
    while not reader.finished:
        part = [{"id": str(row)} for row in rows[(number - 1) * size : number * size]]
        body = {"items": part}
        if total != "none":
            body["total"] = len(rows) + (total == "wrong")
        seen += reader.take(read_page(body, page=number, page_size=100))
        number += 1
    assert len(seen) == len(rows)
    assert reader.complete is (total != "wrong")


def test_an_onward_parameter_takes_the_place_of_the_number():
    request = endpoints.list_jobs(status="failed", page=3, onward=(("cursor", "c"),)).request
    assert dict(request.params) == {"status": "failed", "page_size": "100", "cursor": "c"}
