# SPDX-License-Identifier: Apache-2.0
"""Suggested fields: asked for before a purchase alone, kept with the order, and never a reason to buy again."""

import json

import httpx
import pytest

from tests.core.local import Killed
from ugen_provider.core.batch import PlanOptions
from ugen_provider.core.batch.preview import check_feed
from ugen_provider.core.feeds import FeedMapping
from ugen_provider.core.feeds.mapping import MappingError
from ugen_provider.core.jobs.policy import PurchasePolicy

MAPPING = FeedMapping.from_dict({"suggest": ["custom_script"], "columns": {"custom_script": "script"}})
SCRIPT = PlanOptions(mapping=MAPPING, guard_min=99)


class Suggesting:
    """A service that suggests another text with each answer, and notes what is ordered."""

    def __init__(self, local) -> None:
        self.local = local
        self.asked: list[str] = []
        self.sent: list[tuple[str, str | None, str]] = []
        self.answer = lambda name, number: httpx.Response(200, json={"custom_script": f"Script {number} of {name}."})
        self.lose_answers = False
        local.transport.meddle = self.meddle

    def meddle(self, request, answer):
        if request.path.endswith("/suggest-fields"):
            name = json.loads(request.body)["product_name"]
            self.asked.append(name)
            return self.answer(name, len(self.asked))
        if request.method == "POST" and request.path.endswith("/jobs"):
            body = json.loads(request.body)
            self.sent.append((body["product_name"], body.get("custom_script"), body["idempotency_key"]))
            if self.lose_answers:
                answer()
                raise httpx.ReadTimeout("lost")
        return answer()


@pytest.fixture
def suggesting(local):
    return Suggesting(local)


def test_another_suggestion_next_night_buys_nothing(shop, suggesting):
    shop.sells("a", "b")
    assert shop.run("monday", plan=SCRIPT).completed == 2
    assert sorted(suggesting.asked) == ["Cup a", "Cup b"]
    assert all(script.startswith("Script ") for _, script, _ in suggesting.sent)
    assert shop.run("tuesday", plan=SCRIPT).unchanged == 2
    shop.sells("a", "b", "c")
    shop.run("wednesday", plan=SCRIPT)
    assert suggesting.asked[2:] == ["Cup c"], "only what is bought is asked for"
    assert shop.run("thursday", plan=PlanOptions(guard_min=99)).unchanged == 3, "nor does the end of the setting"
    assert shop.local.created == 3


def test_suggestion_for_videos_without_one_buys_nothing(shop, suggesting):
    shop.sells("a", "b")
    shop.run("monday")
    assert shop.run("tuesday", plan=SCRIPT).unchanged == 2
    assert (shop.local.created, suggesting.asked) == (2, [])


def test_request_with_a_lost_answer_is_sent_again_unchanged(shop, suggesting):
    """The record has the text that was sent: the next night's key and body are the same, and the job is found."""
    shop.sells("a")
    suggesting.lose_answers = True
    shop.run("monday", plan=SCRIPT)
    suggesting.lose_answers = False
    assert shop.run("tuesday", plan=SCRIPT).completed == 1
    assert (len(set(suggesting.sent)), len(suggesting.asked), shop.local.created) == (1, 1, 1)


def test_failed_job_is_bought_again_with_the_same_text(shop, suggesting):
    shop.sells("a")
    shop.local.outcome(fail_at="init", times=1)
    again = PurchasePolicy(on_earlier_failure="resubmit")
    shop.run("monday", plan=SCRIPT, policy=again)
    shop.run("tuesday", plan=SCRIPT, policy=again)
    assert [script for _, script, _ in suggesting.sent] == ["Script 1 of Cup a."] * 2
    assert (len(suggesting.asked), shop.local.created) == (1, 2)


@pytest.mark.parametrize("is_down", [False, True])
def test_failed_job_from_before_the_setting_gets_its_text(shop, suggesting, is_down):
    """The next purchase is the first with a suggestion: it has one, or is not made."""
    shop.sells("a")
    shop.local.outcome(fail_at="init", times=1)
    again = PurchasePolicy(on_earlier_failure="resubmit")
    shop.run("monday", policy=again)
    if is_down:
        suggesting.answer = lambda name, number: httpx.Response(422, json={"detail": "down"})
    report = shop.run("tuesday", plan=SCRIPT, policy=again)
    assert (report.postponed, shop.local.created) == ((1, 1) if is_down else (0, 2))
    assert [script for _, script, _ in suggesting.sent] == [None, "Script 1 of Cup a."][: shop.local.created]


@pytest.mark.parametrize("point", ["before.create", "after.create", "before.record.read"])
def test_killed_run_pays_once_for_a_suggested_request(shop, suggesting, point):
    def kill(at: str) -> None:
        if at == point:
            raise Killed

    shop.sells("a")
    with pytest.raises(BaseException):  # noqa: B017, PT011  the process ended
        shop.run("monday", plan=SCRIPT, probe=kill)
    shop.local.world.advance(3600)
    assert shop.run("monday", plan=SCRIPT).completed == 1
    assert (shop.local.created, len({key for _, _, key in suggesting.sent})) == (1, 1)
    assert len(set(suggesting.sent)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"cta_text": "Buy"}),
        httpx.Response(200, json={"custom_script": ""}),
        httpx.Response(422, json={"detail": "no picture"}),
        httpx.Response(500, json={"detail": "down"}),
    ],
    ids=["another field", "empty", "refused", "down"],
)
def test_product_without_its_suggestion_is_postponed(shop, suggesting, answer):
    """Nothing is bought with a hole in it; once the service answers, the next night buys it."""
    answered, suggesting.answer = suggesting.answer, lambda name, number: answer
    shop.sells("a")
    report = shop.run("monday", plan=SCRIPT)
    assert (report.postponed, shop.local.created, suggesting.sent) == (1, 0, [])
    suggesting.answer = answered
    assert shop.run("tuesday", plan=SCRIPT).completed == 1
    assert shop.local.created == 1


def test_row_with_a_script_of_its_own_asks_for_none(shop, suggesting):
    rows = [{"id": n, "title": f"Cup {n}", "image_link": f"https://s.example/{n}.jpg", "script": s} for n, s in
            (("a", "Mine."), ("b", ""))]  # fmt: skip
    shop.offers(*rows)
    shop.run("monday", plan=SCRIPT)
    assert suggesting.asked == ["Cup b"]
    assert dict(sent[:2] for sent in suggesting.sent)["Cup a"] == "Mine."
    shop.offers(rows[0], {**rows[1], "script": "Mine too."})
    known = (shop.ledger, shop.ledger.find_catalogue("shop"))
    with check_feed(shop.path, job_defaults={"segment_count": 1}, plan=SCRIPT, known=known) as found:
        list(found.rows)
        assert (found.summary.changed, found.summary.unchanged) == (1, 1)


def test_suggest_names_fields_that_are_suggested():
    with pytest.raises(MappingError, match="suggest: 'product_name' is not suggested"):
        FeedMapping.from_dict({"suggest": ["product_name"]})
    with pytest.raises(MappingError, match="feed runs alone"):
        MAPPING.require_no_suggestions()
