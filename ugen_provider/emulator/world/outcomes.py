# SPDX-License-Identifier: Apache-2.0
"""How a job is made to go wrong on purpose: by a rule from `/_emulator/outcomes`, or by a tag in the product's name.

A tag is `#ugen:` and then words joined by colons, anywhere in `product_name`, for whoever has no access to the
admin endpoints: `#ugen:fail:generation:moderation`, `#ugen:score:0.42`, `#ugen:slow:10`, `#ugen:phone`.
"""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ugen_provider.emulator.world.stages import STAGES

MESSAGES = {
    "moderation": "Content moderation: the product image or text was rejected by the safety filter",
    "validation": "Validation: the product image could not be read as a picture of a product",
    "transient": "The video model did not answer (503); the stage was given up after its retries",
}
_TEXTS = ("product_name", "error_message", "category")
_TAG = re.compile(r"#ugen:([\w.:-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What shall happen to jobs that match.

    Attributes:
        product_name: Shell pattern for the product's name; `*` is any.
        fail_at: Stage at which the job fails, or `None`.
        kind: `moderation`, `validation` or `transient`: picks the message.
        error_message: Message in the place of the kind's own.
        score: Quality score of every attempt, or of the item at `index` alone.
        category: Fail category of those attempts, such as `PHONE_DETECTED`.
        index: Keyframe and segment that `score` and `category` are for; `None` for all.
        slow: Factor on every duration.
        no_video: The job completes, and there is no final video.
        times: How many runs (creates and retries) it still applies to; `None` for every one.
    """

    product_name: str = "*"
    fail_at: str | None = None
    kind: str = "transient"
    error_message: str | None = None
    score: float | None = None
    category: str | None = None
    index: int | None = None
    slow: float = 1.0
    no_video: bool = False
    times: int | None = 1

    @property
    def message(self) -> str:
        """The error message of a job that fails by this rule."""
        return self.error_message or MESSAGES[self.kind]


NOTHING = Outcome(times=None)


def parse(data: Mapping[str, Any]) -> Outcome:
    """Read a rule from JSON.

    Raises:
        ValueError: An unknown field, stage or kind, or a value of the wrong sort.
    """
    known = set(Outcome.__dataclass_fields__)
    if unknown := set(data) - known:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; an outcome has {', '.join(sorted(known))}")
    rule = Outcome(**data)
    if rule.fail_at is not None and rule.fail_at not in STAGES:
        raise ValueError(f"fail_at is one of {', '.join(STAGES)}, not {rule.fail_at!r}")
    if rule.kind not in MESSAGES:
        raise ValueError(f"kind is one of {', '.join(MESSAGES)}, not {rule.kind!r}")
    for name, least, most in (("score", 0.0, 1.0), ("slow", 0.0, 1e6), ("times", 1, 1e9), ("index", 0, 10)):
        value = getattr(rule, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"{name} is a number from {least} to {most:g}, not {value!r}")
    if not isinstance(rule.no_video, bool):
        raise ValueError("no_video is true or false")  # noqa: TRY004 - the caller tells what is wrong with JSON
    if wrong := [name for name in _TEXTS if not isinstance(getattr(rule, name), str | None)]:
        raise ValueError(f"{', '.join(wrong)} must be text")
    return rule


def from_tag(product_name: str) -> Outcome | None:
    """Read a `#ugen:` tag; `None` without one, or if it makes no sense."""
    found = _TAG.search(product_name)
    if not found:
        return None
    match found[1].rstrip(".:-").split(":"):
        case ["fail", stage, kind]:
            data: dict[str, Any] = {"fail_at": stage, "kind": kind}
        case ["fail", stage]:
            data = {"fail_at": stage}
        case ["score", score]:
            data = {"score": _number(score)}
        case ["slow", factor]:
            data = {"slow": _number(factor)}
        case ["phone"]:
            data = {"category": "PHONE_DETECTED"}
        case _:
            return None
    try:
        return parse({**data, "times": None})
    except ValueError:
        return None


def choose(rules: list[Outcome], product_name: str) -> Outcome:
    """Return what happens to the next run of a product's job, and use up one of its rule's `times`."""
    for place, rule in enumerate(rules):
        if not fnmatch.fnmatchcase(product_name, rule.product_name):
            continue
        if rule.times is not None:
            if rule.times <= 1:
                del rules[place]
            else:
                rules[place] = replace(rule, times=rule.times - 1)
        return rule
    return from_tag(product_name) or NOTHING


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return -1.0
