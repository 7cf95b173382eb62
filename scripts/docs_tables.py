# SPDX-License-Identifier: Apache-2.0
"""Write the tables of the documentation that the code itself knows, each between its two marks.

    <!-- table: NAME -->
    …
    <!-- end -->

`python scripts/docs_tables.py` writes them; `--check` only compares them with the code.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel

from ugen_provider.cli import main as ugen
from ugen_provider.cli.frame import record_help
from ugen_provider.core.api import models, rules
from ugen_provider.core.api.models import Job
from ugen_provider.core.api.profile import rows as profile_rows
from ugen_provider.core.jobs.policy import Decision, NextAction, PurchasePolicy, decide
from ugen_provider.core.ledger.record import Action, ActionState
from ugen_provider.core.media import manifest
from ugen_provider.emulator.world import readings

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "docs/explain/assumptions.md",
    "docs/explain/index.md",
    "docs/explain/never-pay-twice.md",
    "docs/reference/cli.md",
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


def profile() -> str:
    """Every row of the service profile: the assumption, its default, and what the client does otherwise."""
    proofs = {"free": "`ugen doctor`, free", "purchase": "only by a purchase", "never": "never"}
    cells = []
    for row in profile_rows():
        default = row.default
        if isinstance(default, list):
            shown = ", ".join(f"`{value}`" for value in default)
        else:
            shown = f"`{json.dumps(default)}`"
        cells.append((f"`{row.name}`", row.about, shown, row.evidence, proofs[row.proof], row.otherwise))
    return table(("row", "assumption", "default", "evidence", "checked by", "otherwise"), cells)


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
    NextAction.REATTACH: "reattach: wait for it",
    NextAction.REUSE: "reuse it; nothing is bought",
    NextAction.AWAIT_APPROVAL: "wait for approval",
    NextAction.RESUME: "resume it",
    NextAction.CANCEL_AGAIN: "cancel it again, then as for its end",
    NextAction.WITHDRAW_CANCEL: "withdraw the cancel and reattach",
    NextAction.RETRY_STAGE: "retry it from the failed stage",
    NextAction.NEXT_PURCHASE: "make the next purchase",
    NextAction.FAIL: "fail, and say what to do",
    NextAction.STOP: "stop; never buy",
}

_NEXT_PURCHASE = ("kill", "run_end", "terminate", "timeout")
_FAIL = ("rejected", "expired", "over_max_credits", "operator", "cli")


def _action(kind: str, reason: str, *, token: int = 1, state: ActionState = "confirmed") -> Action:
    return Action("o", 0, "j", kind, reason, token, 0.0, state=state)  # type: ignore[arg-type]


def buying() -> str:
    """The next action for an earlier job of the same order, from `decide`."""
    active, paused, failed, cancelled = map(_job, ("processing", "paused", "failed", "cancelled"))
    kill = partial(_action, "cancel", "kill")
    cases: list[tuple[str, Job, Action | None, dict[str, Any]]] = [
        ("active, or unknown status", active, None, {}),
        ("active, our cancel was sent and is not confirmed", active, kill(state="sent"), {}),
        ("active, our cancel was never sent", active, kill(state="recorded"), {}),
        ("paused by us at a gate", paused, _action("pause", "gate"), {}),
        ("paused by us on interrupt", paused, _action("pause", "interrupt"), {}),
        ("paused by another user", paused, None, {}),
        ("… with `on_paused=fail`", paused, None, {"on_paused": "fail"}),
        ("completed", _job("completed"), None, {}),
        ("failed, a repeat can help", failed, None, {}),
        ("… with `on_earlier_failure=resubmit`", failed, None, {"on_earlier_failure": "resubmit"}),
        ("… with `on_earlier_failure=fail`", failed, None, {"on_earlier_failure": "fail"}),
        ("… and `max_stage_retries` are used up", failed, None, {"max_stage_retries": 0}),
        ("failed: moderation", _job("failed", error_message="content moderation"), None, {}),
        ("failed: validation", _job("failed", error_message="invalid image"), None, {}),
        *(
            (f"cancelled by us: {_words(reason)}, of an earlier attempt", cancelled, _action("cancel", reason), {})
            for reason in _NEXT_PURCHASE
        ),
        ("cancelled by us: kill, of this or a later attempt", cancelled, kill(token=2), {}),
        *((f"cancelled by us: {_words(reason)}", cancelled, _action("cancel", reason), {}) for reason in _FAIL),
        ("cancelled by another user", cancelled, None, {}),
    ]
    rows = []
    for said, job, action, policy in cases:
        cells = []
        for changed in (False, True):
            given = replace(PurchasePolicy(), **policy)
            cells.append(_cell(decide(job, body={}, token=2, policy=given, action=action, changed=changed), changed))
        rows.append((said, *cells))
    return table(("the job is", "the request is the same", "the request has changed"), rows)


def _cell(decision: Decision, changed: bool) -> str:
    warns = changed and decision.message and decision.action in {NextAction.REATTACH, NextAction.REUSE}
    return WORDS[decision.action] + (", with a warning" if warns else "")


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def _job(status: str, error_message: str | None = None) -> Job:
    return Job(job_id="j", status=status, error_message=error_message)


def cancelling() -> str:
    """Return whether the job of a task instance is cancelled with it, as `should_cancel` says it."""
    from ugen_provider.triggers.cancellation import should_cancel

    mine, newer = "1", "2"
    cases = (
        ("a person marked it failed", "failed", False, mine, False),
        ("a person marked it successful", "success", False, mine, False),
        ("its run was deleted", None, True, None, False),
        ("its run timed out", "skipped", False, mine, False),
        ("it was cleared, and is queued again", "queued", False, None, False),
        ("it was cleared, and the next attempt runs", "running", False, newer, False),
        ("the worker, the pod or the triggerer was lost", "running", False, mine, False),
        ("the triggers were given to another triggerer", "deferred", False, mine, False),
        ("another mapped instance has the same `scope_key`", "failed", False, mine, True),
    )
    rows = []
    for said, state, gone, published, shared in cases:
        may = should_cancel(state=state, gone=gone, published=published, attempt=mine, shared=shared)
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
    """Return what is read of each answer."""
    kinds = [kind for kind in vars(models).values() if isinstance(kind, type) and issubclass(kind, models.Answer)]
    rows = [
        # Parameters for a moment of time are typed as Any at run time, so that pendulum is imported late.
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
    kinds = (
        manifest.Manifest,
        manifest.ManifestFile,
        manifest.MissingFile,
        manifest.ManifestCredits,
        manifest.ManifestScores,
    )
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


def decisions() -> str:
    """Every record of a decision, under its title."""
    titles = {path.name: path.read_text("utf-8").partition("\n")[0] for path in (ROOT / "docs" / "adr").glob("*.md")}
    return "\n".join(f"- [{title.removeprefix('# ')}](../adr/{name})" for name, title in sorted(titles.items()))


SHARED_FIELDS = "ugen jobs create"
"""The command whose section explains the fields of a video for all."""


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in _commands("ugen", ugen))


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            yield from _commands(f"{path} {name}", below)


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", inspect.cleandoc(command.help or ""), f"`{usage}`"]
    rows, fields = list[Sequence[str]](), list[Sequence[str]]()
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            (fields if type(parameter).__name__ == "FieldOption" else rows).append(_option(parameter, context))
    if rows:
        parts.append(table(("option", "", "default"), rows))
    if fields and path == SHARED_FIELDS:
        parts += ["### Fields of the video", table(("option", "", "default"), fields)]
    elif fields:
        link = f"[fields of the video](#{_anchor('Fields of the video')})"
        parts.append(f"It also takes the {link}." if len(fields) > 1 else f"It also takes {fields[0][0]}.")
    return "\n\n".join(parts)


def _option(option: click.Option, context: click.Context) -> Sequence[str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    metavar = {"INTEGER RANGE": "NUMBER", "FLOAT RANGE": "NUMBER"}.get(name := option.make_metavar(context), name)
    takes = "" if option.is_flag or option.count else f" `{metavar}`"
    record = option.get_help_record(context)
    said = re.sub(r"\s*\[[^\]]*(?:default|required|x)[^\]]*\]$", "", record[1]) if record else ""
    if option.type.name == "choice" and isinstance(option.type, click.Choice):
        takes = " " + " or ".join(f"`{choice}`" for choice in option.type.choices)
    given = option.get_default(context)
    shown = "must be given" if option.required else "" if _is_none(given, option) else f"`{_default_of(given)}`"
    return names + takes, said.replace("|", "\\|"), shown


def _default_of(value: object) -> str:
    return str(value) if isinstance(value, Path) else _json(value)


def _is_none(value: object, option: click.Option) -> bool:
    return (
        value is None or value is False or value == () or callable(value) or option.is_flag or "Sentinel" in repr(value)
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


TABLES: dict[str, Callable[[], str]] = {
    "profile": profile,
    "switches": switches,
    "values": values,
    "buying": buying,
    "cancelling": cancelling,
    "request": request,
    "answers": answers,
    "manifests": manifests,
    "resource": resource,
    "component": component,
    "commands": commands,
    "decisions": decisions,
}


def written(text: str) -> str:
    """A page with its tables as the code says them."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + "\n" + found[3], text)


HELP = ROOT / "ugen_provider" / "cli" / "help.json"


def main() -> int:
    """Write or check every page, and the stored help of the commands.

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
    shown = json.dumps(record_help(ugen), ensure_ascii=False, indent=1) + "\n"
    if not HELP.exists() or HELP.read_text("utf-8") != shown:
        stale.append(str(HELP.relative_to(ROOT)))
        if "--check" not in sys.argv:
            HELP.write_text(shown, "utf-8")
    if stale and "--check" in sys.argv:
        print(f"{', '.join(stale)}: the code says otherwise; run python scripts/docs_tables.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
