# SPDX-License-Identifier: Apache-2.0
"""The flow around one request, driven by hand: whatever the service does, these hold."""

from hypothesis import given
from hypothesis import strategies as st

from ugen_provider import APIError, RetryPolicy, UGenError
from ugen_provider.core.api.effects import Now, Repeat, Request, Response, Send, Sleep, Tick
from ugen_provider.core.api.errors import TransportError, TransportTimeoutError
from ugen_provider.core.api.flows import Caller, Operation
from ugen_provider.core.api.retries import CoolDown

STATUSES = st.sampled_from([200, 204, 302, 400, 401, 402, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504])
ANSWERS = st.tuples(STATUSES, st.none() | st.integers(0, 300)) | st.sampled_from(["never sent", "lost"])


def drive(repeat, answers, policy):
    """Run a call against a list of fates; what was sent, how long it took, and how it ended."""
    request = Request(method="POST", path="/x", repeat=repeat)
    flow = Caller(policy=policy, cool_down=CoolDown()).call(Operation(request, lambda body: body))
    fates = iter(answers)
    used, now, sleeps = [], 0.0, []
    throw = None
    answer = None
    try:
        effect = next(flow)
        while True:
            match effect:
                case Send():
                    fate = next(fates, (200, None))
                    used.append(fate)
                    if fate == "never sent":
                        throw = TransportError("refused", method="POST", path="/x", maybe_sent=False)
                    elif fate == "lost":
                        throw = TransportTimeoutError("late", method="POST", path="/x", maybe_sent=True)
                    else:
                        headers = {} if fate[1] is None else {"retry-after": str(fate[1])}
                        answer = Response(fate[0], headers, b"{}")
                case Sleep(seconds=seconds):
                    assert seconds >= 0
                    sleeps.append(seconds)
                    now += seconds
                    answer = None
                case Now() | Tick():
                    answer = now
            if throw is not None:
                error, throw = throw, None
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        return used, now, stop.value
    except UGenError as error:
        return used, now, error


@given(st.sampled_from(Repeat), st.lists(ANSWERS, max_size=8), st.integers(1, 6))
def test_what_holds_for_every_call(repeat, answers, attempts):
    policy = RetryPolicy(attempts=attempts, total=120)
    used, took, end = drive(repeat, answers, policy)
    assert 1 <= len(used) <= attempts
    assert took <= 120 + policy.retry_after_cap
    for fate in used[:-1]:
        # A request that may have been acted on is sent again only where a second one cannot act twice.
        if fate == "lost" or (fate != "never sent" and fate[0] != 429):
            assert repeat is not Repeat.UNSAFE
        assert fate == "never sent" or fate == "lost" or fate[0] in {408, 425, 429, 500, 502, 503, 504}
    last = used[-1]
    succeeded = last not in {"never sent", "lost"} and 200 <= last[0] < 300
    assert isinstance(end, UGenError) is not succeeded
    if isinstance(end, APIError):
        assert end.status == last[0]
        acted = any(
            fate == "lost" or (fate != "never sent" and fate[0] in {408, 500, 502, 503, 504}) for fate in used[:-1]
        )
        assert end.after_unclear == acted


@given(st.integers(61, 100_000))
def test_a_longer_wait_than_the_cap_is_raised_with_its_value(seconds):
    used, took, end = drive(Repeat.SAFE, [(429, seconds)], RetryPolicy())
    assert (len(used), took, end.retry_after) == (1, 0.0, seconds)
