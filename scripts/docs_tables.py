# SPDX-License-Identifier: Apache-2.0
"""Write the tables of the documentation that the code itself knows, each between its two marks.

    <!-- table: NAME -->
    …
    <!-- end -->

`python scripts/docs_tables.py` writes them; `--check` only tells whether they are what the code says.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ugen_provider.core.api import models, rules
from ugen_provider.core.api.models import Job
from ugen_provider.core.jobs.buying import BuyingPolicy, Move, decide
from ugen_provider.core.jobs.intent import OurAction
from ugen_provider.core.media import manifest
from ugen_provider.emulator.world import readings

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "docs/explain/assumptions.md",
    "docs/explain/never-pay-twice.md",
    "docs/reference/client.md",
    "docs/reference/dagster.md",
    "docs/reference/emulator.md",
    "docs/reference/media.md",
)
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def switches() -> str:
    """Every open question about the service: what is assumed, and what else it could be."""
    explained = dict(re.findall(r"^    +(\w+): (.+)$", inspect.getdoc(readings.Readings) or "", re.MULTILINE))
    assumed = readings.Readings().as_dict()
    rows = []
    for name in readings.names():
        others = [value for value in readings.choices(name) if value != assumed[name]]
        flips = [f"`{name}={value}`" for value in others] or [f"`{name}=SECONDS`"]
        rows.append((explained[name], _turned(name, assumed[name]), "<br>".join(flips)))
    return table(("the question", "assumed", "otherwise"), rows)


def _turned(name: str, value: object) -> str:
    return f"`{name}={value:g}`" if isinstance(value, float) else f"`{name}={value}`"


def values() -> str:
    """Every switch with its values, the default first."""
    explained = dict(re.findall(r"^    +(\w+): (.+)$", inspect.getdoc(readings.Readings) or "", re.MULTILINE))
    assumed = readings.Readings().as_dict()
    rows = []
    for name in readings.names():
        choices = readings.choices(name)
        shown = ", ".join(map(_shown, choices)) if choices else f"{_shown(assumed[name])} or any number of seconds"
        rows.append((f"`{name}`", shown, explained[name]))
    return table(("switch", "values", ""), rows)


def _shown(value: object) -> str:
    return "(none)" if value == "" else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


WORDS = {
    Move.ATTACH: "wait for it",
    Move.TAKE: "take it",
    Move.GATE: "as the gate says",
    Move.RESUME: "resume it",
    Move.CANCEL_AGAIN: "cancel it again, then as for its end",
    Move.RETRY_STAGE: "run it again from the stage that failed",
    Move.NEXT_GENERATION: "buy another one",
    Move.FAIL: "fail, and say what to do",
}


def buying() -> str:
    """What is done with an earlier job of the same order, as `decide` says it."""
    by_us = [
        (f"cancelled by us: {reason.replace('_', ' ')}", _job("cancelled"), OurAction("cancel", reason, 0.0, True), {})
        for reason in ("kill", "timeout", "rejected", "expired", "over_max_credits", "operator", "cli")
    ]
    cases = [
        ("under way, or in a status that nobody documented", _job("processing"), None, {}),
        ("under way, our cancel not confirmed", _job("processing"), OurAction("cancel", "kill", 0.0), {}),
        ("paused by us on an interrupt", _job("paused"), OurAction("pause", "interrupt", 0.0, True), {}),
        ("paused by somebody else", _job("paused"), None, {}),
        ("… with `on_paused=fail`", _job("paused"), None, {"on_paused": "fail"}),
        ("completed", _job("completed"), None, {}),
        ("failed, for a reason that a repeat can mend", _job("failed"), None, {}),
        ("… with `on_earlier_failure=resubmit`", _job("failed"), None, {"on_earlier_failure": "resubmit"}),
        ("… with `on_earlier_failure=fail`", _job("failed"), None, {"on_earlier_failure": "fail"}),
        ("… and `max_stage_retries` used up", _job("failed"), None, {"max_stage_retries": 0}),
        ("failed: moderation", _job("failed", error_message="content moderation"), None, {}),
        ("failed: validation", _job("failed", error_message="invalid image"), None, {}),
        *by_us,
        ("cancelled by somebody else", _job("cancelled"), None, {}),
        ("unknown to the service (404)", None, None, {}),
    ]
    rows = []
    for said, job, action, policy in cases:
        moves = []
        for changed in (False, True):
            decision = decide(
                job,
                body={},
                action=action,
                changed=changed,
                stage_retries=0,
                policy=replace(BuyingPolicy(), **policy),
            )
            warned = ", and warn" if changed and decision.move in {Move.ATTACH, Move.TAKE} and decision.note else ""
            moves.append(WORDS[decision.move] + warned)
        rows.append((said, *moves))
    return table(("the job is", "the request is the same", "the request has changed"), rows)


def _job(status: str, error_message: str | None = None) -> Job:
    return Job(job_id="j", status=status, error_message=error_message)


def cancelling() -> str:
    """Whether the job of a task instance is cancelled with it, as `may_cancel` says it."""
    from ugen_provider.triggers.killing import Watch, may_cancel

    mine = Watch("j", "ugen_default", scope="", attempt=1, cancel_on_kill=True)
    cases = (
        ("a person marked it failed", "failed", False, mine, False),
        ("a person marked it successful", "success", False, mine, False),
        ("its run was deleted", None, True, None, False),
        ("its run timed out", "skipped", False, mine, False),
        ("it was cleared, and is queued again", "queued", False, None, False),
        ("it was cleared, and the next attempt runs", "running", False, replace(mine, attempt=2), False),
        ("the worker, the pod or the triggerer was lost", "running", False, mine, False),
        ("the triggers were given to another triggerer", "deferred", False, mine, False),
        ("another mapped instance has the same `scope_key`", "failed", False, mine, True),
    )
    rows = []
    for said, state, gone, watched, shared in cases:
        may = may_cancel(state=state, gone=gone, watched=watched, attempt=1, shared=shared)
        rows.append((said, f"`{state}`" if state else "(gone)", "cancelled" if may else "left"))
    return table(("what happened to the task instance", "its state", "the job is"), rows)


def request() -> str:
    """Every field of a create-job request: what it may hold, and what the service takes where it is left out."""
    kinds = {"string": "text", "url": "http(s) URL", "integer": "whole number", "object": "object",
             "number": "number", "boolean": "true or false", "strings": "list of texts"}  # fmt: skip
    rows = []
    for rule in rules.FIELDS:
        least, most = (None if bound is None else f"{bound:g}" for bound in (rule.least, rule.most))
        span = f", {least} to {most}" if least and most else f", at least {least}" if least else ""
        one_of = f": one of {', '.join(f'`{value}`' for value in rule.one_of)}" if rule.one_of else ""
        without = "must be given" if rule.required else "" if rule.default is None else f"`{_json(rule.default)}`"
        rows.append((f"`{rule.name}`", f"{kinds[rule.kind]}{span}{one_of}", without))
    return table(("field", "holds", "without it, the service takes"), rows)


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def answers() -> str:
    """What is read of each answer."""
    kinds = [kind for kind in vars(models).values() if isinstance(kind, type) and issubclass(kind, models.Answer)]
    rows = [
        # What reads a moment of time is typed as Any at run time, so that pendulum is imported late.
        (
            f"`{kind.__name__}`",
            f"`{name}`",
            "`datetime` or none" if field.annotation is Any else _holds(field.annotation),
        )
        for kind in kinds
        for name, field in kind.model_fields.items()
    ]
    return table(("answer", "field", "holds"), rows)


def manifests() -> str:
    """Every field of a manifest."""
    kinds = (manifest.Manifest, manifest.ManifestFile, manifest.MissingFile, manifest.Credits, manifest.Scores)
    rows = [
        (f"`{kind.__name__}`", f"`{name}`", _holds(field.annotation), field.description or "")
        for kind in kinds
        for name, field in kind.model_fields.items()
    ]
    return table(("of", "field", "holds", ""), rows)


def resource() -> str:
    """Every setting of the Dagster resource."""
    from dagster_ugen import UGenResource

    return table(("setting", "holds", "default", ""), _settings(UGenResource))


def component() -> str:
    """Everything that the component's YAML may say."""
    from dagster_ugen import UGenVideosComponent

    return table(("attribute", "holds", "default", ""), _settings(UGenVideosComponent))


def _settings(kind: type[BaseModel], *, below: str = "") -> Iterator[Sequence[str]]:
    for name, field in kind.model_fields.items():
        inner = next((part for part in (field.annotation, *get_args(field.annotation)) if _is_model(part)), None)
        default = "must be given" if field.is_required() else "" if inner else _default(field.default)
        holds = "these:" if inner else _holds(field.annotation)
        yield f"`{below}{name}`", holds, default, " ".join(filter(None, (field.description, _see(inner))))
        if inner is not None:
            yield from _settings(inner, below=f"{below}{name}.")


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _see(kind: type[BaseModel] | None) -> str:
    """Where the fields of a part are explained."""
    found = re.search(r"see (`\w+`)", (kind and kind.__doc__) or "")
    return f"See {found[1]}." if found else ""


def _default(value: object) -> str:
    return "none" if value is None else "empty" if value in ("", [], {}) else f"`{_json(value)}`"


def _holds(annotation: Any) -> str:
    """A type, in words."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not Ellipsis]
    if origin in {Union, UnionType}:
        known = [_holds(part) for part in parts if part is not NoneType]
        return " or ".join([*known, *(["none"] if NoneType in parts else [])])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in {tuple, list}:
        return f"list of {_holds(parts[0])}"
    if origin is dict:
        return "object"
    if annotation in WORDS_OF:
        return WORDS_OF[annotation]
    return f"`{annotation.__name__}`"


WORDS_OF: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "anything",
}


TABLES: dict[str, Callable[[], str]] = {
    "switches": switches,
    "values": values,
    "buying": buying,
    "cancelling": cancelling,
    "request": request,
    "answers": answers,
    "manifests": manifests,
    "resource": resource,
    "component": component,
}


def written(text: str) -> str:
    """A page with its tables as the code says them."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + "\n" + found[3], text)


def main() -> int:
    """Write or check every page.

    Returns:
        The exit code: 1 if a table is not what the code says.
    """
    stale = []
    for name in PAGES:
        page = ROOT / name
        text = page.read_text("utf-8")
        if written(text) != text:
            stale.append(name)
            if "--check" not in sys.argv:
                page.write_text(written(text), "utf-8")
    if stale and "--check" in sys.argv:
        print(f"{', '.join(stale)}: the code says otherwise; run python scripts/docs_tables.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
