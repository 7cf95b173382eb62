# SPDX-License-Identifier: Apache-2.0
"""The attempts of one call: what holds for every service, of the async executor and its blocking twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugen_provider import APIError, RetryPolicy, UGenError
from ugen_provider.core.api.async_client import AsyncRequestExecutor
from ugen_provider.core.api.client import RequestExecutor
from ugen_provider.core.api.config import ClientConfig, Secret
from ugen_provider.core.api.endpoints import Endpoint, Repeat, Request, Response
from ugen_provider.core.api.errors import TransportError, TransportTimeoutError

STATUSES = st.sampled_from([200, 204, 302, 400, 401, 402, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504])
ANSWERS = st.tuples(STATUSES, st.none() | st.integers(0, 300)) | st.sampled_from(["never sent", "lost"])


class Outside:
    """Answers from a list; waiting moves its clock."""

    def __init__(self, fates):
        self.fates, self.used, self.seconds = iter(fates), [], 0.0

    def answer(self):
        fate = next(self.fates, (200, None))
        self.used.append(fate)
        if fate == "never sent":
            raise TransportError("refused", method="POST", path="/x", maybe_sent=False)
        if fate == "lost":
            raise TransportTimeoutError("late", method="POST", path="/x", maybe_sent=True)
        return Response(fate[0], {} if fate[1] is None else {"retry-after": str(fate[1])}, b"{}")

    def wait(self, seconds):
        assert seconds >= 0
        self.seconds += seconds

    def now(self):
        return self.seconds

    tick = now


class Blocking(Outside):
    def send(self, request, *, settings=None):
        return self.answer()

    def sleep(self, seconds):
        self.wait(seconds)


class Awaited(Outside):
    async def send(self, request, *, settings=None):
        return self.answer()

    async def sleep(self, seconds):
        self.wait(seconds)


def finish(coroutine):
    """Run a coroutine that never has to wait."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def drive(kind, repeat, fates, policy, **how):
    """Call an endpoint against a list of fates; what was sent, how long it took, and how it ended."""
    endpoint = Endpoint(Request(method="POST", path="/x", repeat=repeat), lambda body: body)
    outside = kind(fates)
    try:
        if kind is Blocking:
            end = RequestExecutor(outside, ClientConfig(Secret("k"), retries=policy)).call(endpoint, **how)
        else:
            end = finish(AsyncRequestExecutor(outside, ClientConfig(Secret("k"), retries=policy)).call(endpoint, **how))
    except UGenError as error:
        end = error
    return outside.used, outside.seconds, end


KINDS = st.sampled_from([Blocking, Awaited])


@given(KINDS, st.sampled_from(Repeat), st.lists(ANSWERS, max_size=8), st.integers(1, 6))
def test_call_repeats_only_what_cannot_act_twice(kind, repeat, answers, attempts):
    policy = RetryPolicy(attempts=attempts, total=120)
    used, took, end = drive(kind, repeat, answers, policy)
    limited = sum(fate not in {"never sent", "lost"} and fate[0] == 429 for fate in used)
    assert 1 <= len(used) <= attempts + limited
    assert attempts > 1 or len(used) == 1
    assert took <= 120 + policy.retry_after_cap
    for fate in used[:-1]:
        # A request that may have been acted on is sent again only where a second one cannot act twice.
        if fate == "lost" or (fate != "never sent" and fate[0] != 429):
            assert repeat is not Repeat.UNSAFE
        in_flight = {409} if repeat is Repeat.KEYED else set()
        assert fate == "never sent" or fate == "lost" or fate[0] in {408, 425, 429, 500, 502, 503, 504} | in_flight
    last = used[-1]
    succeeded = last not in {"never sent", "lost"} and 200 <= last[0] < 300
    assert isinstance(end, UGenError) is not succeeded
    if isinstance(end, APIError):
        assert end.status == last[0]
        acted = any(
            fate == "lost" or (fate != "never sent" and fate[0] in {408, 409, 425, 500, 502, 503, 504})
            for fate in used[:-1]
        )
        assert end.after_unclear == acted


@given(KINDS, st.sampled_from(Repeat), ANSWERS)
def test_call_without_retry_sends_once(kind, repeat, answer):
    used, took, _ = drive(kind, repeat, [answer], RetryPolicy(), retry=False)
    assert (len(used), took) == (1, 0.0)


@given(KINDS, st.sampled_from(Repeat), st.none() | st.integers(0, 300))
def test_call_that_must_not_wait_raises_429_at_once(kind, repeat, seconds):
    used, took, end = drive(kind, repeat, [(429, seconds)], RetryPolicy(), wait_when_limited=False)
    assert (len(used), took, end.status) == (1, 0.0, 429)


@given(KINDS, st.integers(61, 100_000))
def test_call_raises_a_pause_beyond_the_cap(kind, seconds):
    used, took, end = drive(kind, Repeat.SAFE, [(429, seconds)], RetryPolicy())
    assert (len(used), took, end.retry_after) == (1, 0.0, seconds)
