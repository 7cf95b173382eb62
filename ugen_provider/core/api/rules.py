# SPDX-License-Identifier: Apache-2.0
"""The documented rules of a create-job request: one table in plain Python.

Read by `CreateJob`, by the operators when a DAG is parsed and by the Dagster component when its YAML is loaded, so it
imports neither httpx nor pydantic. Value lists that the documentation leaves open stay open here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

STAGES = ("prepare", "agents", "init", "generation", "concat", "audio", "captions", "complete")
"""The eight stages of a job, in order."""

DEFAULT_VIDEO_MODEL = "veo3_fast"
"""The service's default model."""

Kind = Literal["string", "url", "integer", "number", "boolean", "object", "strings"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: the field, the rule in words, and a short form of the value."""

    field: str
    rule: str
    value: str = ""

    def __str__(self) -> str:
        shown = f", got {self.value}" if self.value else ""
        return f"{self.field}: {self.rule}{shown}"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """Allowed values of one field, and what it is about in a sentence or two.

    `default` is what the service takes when the field is left out.
    """

    name: str
    kind: Kind
    about: str
    required: bool = False
    default: Any = None
    least: float | None = None
    most: float | None = None
    one_of: tuple[str, ...] = ()


FIELDS: tuple[FieldRule, ...] = (
    FieldRule(
        "product_name",
        "string",
        "Name of the product, as the presenter says it.",
        required=True,
    ),
    FieldRule(
        "product_image_url",
        "url",
        "Address of its picture (http or https), which the service must be able to fetch.",
        required=True,
    ),
    FieldRule(
        "segment_count",
        "integer",
        "Length of the video in segments of segment_duration seconds; the credits grow with it.",
        required=True,
        least=1,
        most=10,
    ),
    FieldRule(
        "video_model",
        "string",
        "Model that makes the video: Veo makes segments of 8 s; Kling makes 3 to 10 s, and alone 1:1.",
        default=DEFAULT_VIDEO_MODEL,
    ),
    FieldRule(
        "video_resolution",
        "string",
        "Resolution of the video; the credits can depend on it.",
        default="standard",
    ),
    FieldRule(
        "aspect_ratio",
        "string",
        "Shape of the picture: 9:16, 16:9, or with a Kling model 1:1.",
        default="9:16",
    ),
    FieldRule(
        "segment_duration",
        "integer",
        "Seconds of a segment: 8 with Veo, 3 to 10 with Kling.",
        default=8,
        least=1,
    ),
    FieldRule(
        "interaction_mode",
        "string",
        "How the presenter shows the product: holdable (in the hand), display_static (beside it).",
        default="holdable",
    ),
    FieldRule(
        "environment_description",
        "string",
        "Where the scene takes place, in your words.",
    ),
    FieldRule(
        "key_selling_points",
        "strings",
        "A point that the generated script makes; custom_script replaces it.",
    ),
    FieldRule(
        "cta_text",
        "string",
        "What the generated script asks the viewer to do at its end; custom_script replaces it.",
    ),
    FieldRule(
        "custom_script",
        "string",
        "The spoken words; script_structure, script_tone, key_selling_points and cta_text are then ignored.",
    ),
    FieldRule(
        "script_structure",
        "string",
        "Structure of the generated script; custom_script replaces it.",
        default="standard_5phase",
    ),
    FieldRule(
        "script_tone",
        "string",
        "Tone of the generated script, such as conversational or enthusiastic; custom_script replaces it.",
        default="conversational",
    ),
    FieldRule(
        "persona_id",
        "string",
        "Id of the presenter; without one the service picks a presenter at random.",
    ),
    FieldRule(
        "captions_enabled",
        "boolean",
        "Whether the spoken words are shown as captions.",
        default=True,
    ),
    FieldRule(
        "caption_style",
        "string",
        "Style of the captions.",
        default="tiktok_karaoke",
    ),
    FieldRule(
        "custom_caption_options",
        "object",
        "Details of the captions as an object; the service charges extra credits for it.",
    ),
    FieldRule(
        "music_enabled",
        "boolean",
        "Whether music plays in the background.",
        default=True,
    ),
    FieldRule(
        "music_mood",
        "string",
        "Mood of the music from the catalog, such as upbeat.",
    ),
    FieldRule(
        "music_volume",
        "number",
        "Loudness of the music; 0.15 is 15 %.",
        default=0.15,
        least=0,
        most=1,
    ),
    FieldRule(
        "custom_music_id",
        "string",
        "Id of a track that you uploaded (`client.music`), in place of the catalog's.",
    ),
    FieldRule(
        "elevenlabs_voice_id",
        "string",
        "Id of an ElevenLabs voice, in place of the presenter's.",
    ),
    FieldRule(
        "voice_settings",
        "object",
        "Settings of that voice as an object.",
    ),
    FieldRule(
        "qai_enabled",
        "boolean",
        "Whether the service scores each keyframe and segment.",
        default=True,
    ),
    FieldRule(
        "qai_mode",
        "string",
        "Score from which a keyframe or segment passes: lenient 0.55, standard 0.70, strict 0.80.",
        default="lenient",
    ),
    FieldRule(
        "max_retries_keyframe",
        "integer",
        "How often a keyframe that did not pass is made again.",
        default=1,
        least=0,
        most=5,
    ),
    FieldRule(
        "max_retries_video",
        "integer",
        "How often a segment that did not pass is made again.",
        default=0,
        least=0,
        most=5,
    ),
    FieldRule(
        "human_review",
        "string",
        "Whether people of the service review the results; off is no review.",
        default="off",
    ),
    FieldRule(
        "human_review_max_rejections",
        "integer",
        "How often such a review may reject.",
        default=0,
        least=0,
    ),
    FieldRule(
        "human_review_budget",
        "string",
        "What happens when these rejections are used up.",
        default="accept_best",
    ),
    FieldRule(
        "failure_behavior",
        "string",
        "What happens if no attempt passed: accept_best takes the best one.",
        default="accept_best",
    ),
    FieldRule(
        "stop_at_stage",
        "string",
        "Stage after which the job stops, for example init to check the keyframe before you pay for video.",
        one_of=STAGES,
    ),
    FieldRule(
        "webhook_url",
        "url",
        "Address that receives the events of this job, in place of the account's webhook.",
    ),
    FieldRule(
        "idempotency_key",
        "string",
        "Key under which the service knows this request.",
    ),
)
"""All fields of `POST /jobs`, with the service's defaults."""

BY_NAME: Mapping[str, FieldRule] = {rule.name: rule for rule in FIELDS}
DEFAULTS: Mapping[str, Any] = {rule.name: rule.default for rule in FIELDS if rule.default is not None}

_TYPES: Mapping[Kind, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: isinstance(value, str), "must be text"),
    "url": (lambda value: isinstance(value, str), "must be an http(s) URL"),
    "integer": (
        lambda value: isinstance(value, int) and not isinstance(value, bool),
        "must be a whole number",
    ),
    "number": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        "must be a number",
    ),
    "boolean": (lambda value: isinstance(value, bool), "must be true or false"),
    "object": (lambda value: isinstance(value, Mapping), "must be an object"),
    "strings": (
        lambda value: isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
        "must be a list of texts",
    ),
}


def _is_veo(model: str) -> bool:
    return model.startswith("veo")


def _is_kling(model: str) -> bool:
    return model.startswith("kling")


def _of_the_model(fields: Mapping[str, Any], model: str) -> list[Violation]:
    found = []
    duration = fields.get("segment_duration")
    if isinstance(duration, int):
        if _is_veo(model) and duration != 8:
            found.append(Violation("segment_duration", f"{model} makes segments of 8 s only", str(duration)))
        if _is_kling(model) and not 3 <= duration <= 10:
            found.append(Violation("segment_duration", f"{model} makes segments of 3 to 10 s", str(duration)))
    if fields.get("aspect_ratio") == "1:1" and not _is_kling(model):
        found.append(Violation("aspect_ratio", f"1:1 is made by Kling models only, not by {model}", "'1:1'"))
    return found


def check(
    fields: Mapping[str, Any],
    *,
    model: str | None = None,
    pending: Collection[str] = (),
    partial: bool = False,
) -> list[Violation]:
    """Check a create-job request against the documented rules.

    Args:
        fields: The request; fields that are absent or None count as not set.
        model: The model that the account will use where the request names none. Without one, and without
            `video_model`, rules that depend on the model wait until it is known.
        pending: Names of fields whose value comes later, such as a template; they are not judged.
        partial: Whether required fields may be missing, for defaults that are merged later.

    Returns:
        What is wrong, in the order of the table; empty if nothing is.

    Examples:
        >>> [str(v) for v in check({"product_name": "Lamp", "product_image_url": "ftp://x", "segment_count": 11})]
        ["product_image_url: must be an http(s) URL, got 'ftp://x'", 'segment_count: must be at most 10, got 11']
    """
    given = {name: value for name, value in fields.items() if value is not None and name not in pending}
    found = [Violation(name, "is not a field of POST /jobs") for name in given if name not in BY_NAME]
    for rule in FIELDS:
        if rule.name in given:
            found.extend(_check_one(rule, given[rule.name]))
        elif rule.required and not partial and rule.name not in pending:
            found.append(Violation(rule.name, "is required"))
    named = None if "video_model" in pending else given.get("video_model") or model
    if isinstance(named, str):
        found.extend(_of_the_model(given, named))
    return found


def _check_one(rule: FieldRule, value: Any) -> list[Violation]:
    right, message = _TYPES[rule.kind]
    shown = _short(value)
    if not right(value):
        return [Violation(rule.name, message, shown)]
    if rule.kind == "url" and not is_http_url(value):
        return [Violation(rule.name, message, shown)]
    if rule.kind == "string" and not value.strip():
        return [Violation(rule.name, "must not be empty", shown)]
    if rule.least is not None and value < rule.least:
        return [Violation(rule.name, f"must be at least {rule.least:g}", shown)]
    if rule.most is not None and value > rule.most:
        return [Violation(rule.name, f"must be at most {rule.most:g}", shown)]
    if rule.one_of and value not in rule.one_of:
        return [Violation(rule.name, f"must be one of {', '.join(rule.one_of)}", shown)]
    return []


def coerce(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn text into what a field holds, where its meaning is plain; what is not plain is left for `check`.

    Templates and spreadsheets know only text: `"3"` becomes 3, `"true"` becomes True, JSON becomes a list or object,
    and an optional field that came out empty counts as not set.

    Examples:
        >>> coerce({"segment_count": "3", "music_enabled": "no", "cta_text": ""})
        {'segment_count': 3, 'music_enabled': False}
    """
    coerced = {}
    for name, value in fields.items():
        rule = BY_NAME.get(name)
        if value is None or (value == "" and rule is not None and not rule.required):
            continue
        coerced[name] = _from_text(rule.kind, value) if rule is not None and isinstance(value, str) else value
    return coerced


_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _from_text(kind: Kind, text: str) -> Any:
    if kind in {"string", "url"}:
        return text
    stripped = text.strip()
    try:
        match kind:
            case "boolean":
                return _WORDS.get(stripped.lower(), text)
            case "integer":
                return int(stripped)
            case "number":
                return float(stripped)
            case "strings" if not stripped.startswith("["):
                return [stripped]
            case _:
                return json.loads(stripped)
    except ValueError:
        return text


def check_stage(value: str, *, name: str = "restart_from_stage") -> list[Violation]:
    """Check the name of a stage.

    Examples:
        >>> check_stage("generation")
        []
    """
    if value in STAGES:
        return []
    return [Violation(name, f"must be one of {', '.join(STAGES)}", _short(value))]


_WORDS_PER_SECOND = 3.5
"""Words that a fast speaker says in a second; ordinary speech has 2.5."""

_PARTS_THAT_ARE_OFF: Mapping[str, tuple[str, ...]] = {
    "captions_enabled": ("caption_style", "custom_caption_options"),
    "music_enabled": ("music_mood", "music_volume", "custom_music_id"),
}


def contradictions(fields: Mapping[str, Any]) -> list[str]:
    """Return where a request contradicts itself, though the service accepts it.

    Examples:
        >>> contradictions({"captions_enabled": False, "caption_style": "bold"})
        ['captions_enabled is false, so caption_style has no effect']
        >>> contradictions({"custom_script": "word " * 40, "segment_count": 1})
        ['custom_script has 40 words, and 1 segment of 8 s has time for about 28']
    """
    found = []
    for switch, names in _PARTS_THAT_ARE_OFF.items():
        given = [name for name in names if fields.get(name) is not None]
        if fields.get(switch) is False and given:
            found.append(f"{switch} is false, so {' and '.join(given)} {'have' if len(given) > 1 else 'has'} no effect")
    if fields.get("custom_music_id") and fields.get("music_mood"):
        found.append("custom_music_id is set, so music_mood has no effect")
    script, count = fields.get("custom_script"), fields.get("segment_count")
    seconds = fields.get("segment_duration", DEFAULTS["segment_duration"])
    if isinstance(script, str) and isinstance(count, int) and isinstance(seconds, int):
        words, most = len(script.split()), int(count * seconds * _WORDS_PER_SECOND)
        if words > most:
            segments = f"{count} segment{'s' if count > 1 else ''} of {seconds} s"
            verb = "have" if count > 1 else "has"
            found.append(f"custom_script has {words} words, and {segments} {verb} time for about {most}")
    return found


def warnings(fields: Mapping[str, Any]) -> list[str]:
    """Return what the service will silently ignore or change in a request that breaks no rule.

    Examples:
        >>> warnings({"custom_script": "Look!", "cta_text": "Buy"})
        ['custom_script is set, so cta_text is ignored by the service']
    """
    found = []
    if fields.get("custom_script"):
        ignored = [
            name
            for name in ("script_structure", "script_tone", "key_selling_points", "cta_text")
            if fields.get(name) is not None
        ]
        if ignored:
            verb = "are" if len(ignored) > 1 else "is"
            found.append(f"custom_script is set, so {' and '.join(ignored)} {verb} ignored by the service")
    if fields.get("max_retries_keyframe") == 0 and fields.get("qai_enabled", True):
        found.append("max_retries_keyframe is 0 while qai_enabled is on: the service may raise it to 1")
    found += contradictions(fields)
    found += [f"{name} is {fields[name]!r}: did you mean {word!r}?" for name, word in near_misses(fields).items()]
    return found


KNOWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "video_model": ("veo3_fast", "veo3", "kling3_std", "kling3_pro", "kling3_4k"),
    "aspect_ratio": ("9:16", "16:9", "1:1"),
    "qai_mode": ("lenient", "standard", "strict"),
    "interaction_mode": ("holdable", "display_static"),
    "script_tone": ("conversational", "enthusiastic"),
    "failure_behavior": ("accept_best",),
    "human_review_budget": ("accept_best",),
}
"""Words that some page of the documentation names. The service may know more, so another word is no violation."""


def near_misses(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the known word for each field whose word is probably misspelled.

    Examples:
        >>> near_misses({"aspect_ratio": "9:17", "qai_mode": "strickt", "video_model": "klng3", "script_tone": "calm"})
        {'video_model': 'kling3_4k', 'aspect_ratio': '9:16', 'qai_mode': 'strict'}
    """
    meant: dict[str, str] = {}
    for name, words in KNOWN_WORDS.items():
        value = fields.get(name)
        if isinstance(value, str) and value not in words:
            from difflib import get_close_matches

            if close := get_close_matches(value, words, n=1, cutoff=0.6):
                meant[name] = close[0]
    return meant


def is_http_url(value: str) -> bool:
    """Return whether this is an absolute http or https URL with a host.

    Examples:
        >>> is_http_url("https://shop.example/lamp.jpg"), is_http_url("/lamp.jpg")
        (True, False)
    """
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host) and not any(c.isspace() for c in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
