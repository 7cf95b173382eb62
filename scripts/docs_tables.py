# SPDX-License-Identifier: Apache-2.0
"""Write the tables of the documentation that the code itself knows, each between its two marks.

    <!-- table: NAME -->
    …
    <!-- end -->

`python scripts/docs_tables.py` writes them; `--check` only tells whether they are what the code says.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ugen_provider.core.api.models import Job
from ugen_provider.core.jobs.buying import BuyingPolicy, Move, decide
from ugen_provider.core.jobs.intent import OurAction
from ugen_provider.emulator.world import readings

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/explain/assumptions.md", "docs/explain/never-pay-twice.md", "docs/reference/emulator.md")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def switches() -> str:
    """Every open question about the service: what is assumed, what else it could be, how that is turned on."""
    explained = dict(re.findall(r"^    +(\w+): (.+)$", inspect.getdoc(readings.Readings) or "", re.MULTILINE))
    assumed = readings.Readings().as_dict()
    rows = []
    for name in readings.names():
        others = [value for value in readings.choices(name) if value != assumed[name]]
        flips = [f"`--reading {name}={value}`" for value in others] or [f"`--reading {name}=SECONDS`"]
        rows.append((f"`{name}`", explained[name], _shown(assumed[name]), "<br>".join(flips)))
    return table(("switch", "the question", "assumed", "turn it with"), rows)


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


TABLES: dict[str, Callable[[], str]] = {
    "switches": switches,
    "values": values,
    "buying": buying,
    "cancelling": cancelling,
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
