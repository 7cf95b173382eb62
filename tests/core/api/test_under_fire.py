# SPDX-License-Identifier: Apache-2.0
"""Answers that are lost, a thousand times over; and what is left in the logs."""

import logging
import random

import httpx
import pytest

from tests.core.local import Local
from ugen_provider import CreateJob, RetryPolicy, UGenError
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)


def misfortune(draw):
    """Loses answers, refuses, and breaks connections, by seed; the first three of any call at most."""

    def meddle(request, answer):
        fate = draw.random()
        if fate < 0.15:
            raise httpx.ConnectError("refused")
        if fate < 0.25:
            return httpx.Response(draw.choice([429, 500, 502, 503, 504]), content=b"<html>")
        response = answer()
        if fate < 0.55:
            raise draw.choice([httpx.ReadTimeout("lost"), httpx.ReadError("reset"), httpx.RemoteProtocolError("cut")])
        return response

    return meddle


def test_a_thousand_creates_with_lost_answers_make_one_job_each():
    local = Local(Settings(speed=0, admin=True))
    draw = random.Random(7)
    answered = 0
    with local.client(retries=RetryPolicy(attempts=6)) as client:
        for number in range(1000):
            local.transport.meddle = misfortune(draw)
            key = f"order-{number}"
            while True:
                try:
                    client.jobs.create(LAMP, idempotency_key=key)
                except UGenError:
                    continue  # the caller tries again, with the key that it wrote down
                answered += 1
                break
    purchases = local.world.journal.find_purchases(kind="create")
    assert answered == 1000
    assert len(purchases) == len({p.idempotency_key for p in purchases}) == 1000


def test_the_whole_debug_log_of_a_full_run_holds_no_key(caplog, local):
    caplog.set_level(logging.DEBUG)
    local.transport.meddle = misfortune(random.Random(1))
    with local.client(retries=RetryPolicy(attempts=20)) as client:
        job = client.jobs.create(LAMP)
        client.jobs.wait(job.job_id)
        client.diagnose()
    assert len(caplog.records) > 10
    assert LOCAL_KEY not in caplog.text


def test_a_traced_application_gets_one_span_per_call(local):
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    from opentelemetry import trace as api
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    real, api.get_tracer = api.get_tracer, provider.get_tracer
    left = [2]

    def meddle(request, answer):
        if left[0]:
            left[0] -= 1
            return httpx.Response(503)
        return answer()

    local.transport.meddle = meddle
    try:
        with local.client() as client:
            client.credits.balance()
            with pytest.raises(UGenError):
                client.jobs.get("550e8400-e29b-41d4-a716-446655440000")
    finally:
        api.get_tracer = real
    good, bad = spans.get_finished_spans()
    assert (good.name, good.attributes["http.request.resend_count"]) == ("ugen balance", 2)
    assert (bad.attributes["error.type"], bad.attributes["http.response.status_code"]) == ("NotFoundError", 404)
    assert LOCAL_KEY not in good.to_json() + bad.to_json()
