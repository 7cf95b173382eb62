# SPDX-License-Identifier: Apache-2.0
"""Every place where the documentation is silent or disagrees with itself, as a named switch.

The default of each is the reading that our reference assumes. Nothing else in the emulator decides such a question:
code asks `readings.NAME`, so that any other plausible service can be turned on with `--reading NAME=VALUE`.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One choice for each open question about the service.

    Attributes:
        models: Which video models jobs accept: all that any page names, or Kling alone as the newest page says.
        create_status: Status code of a created job.
        replay_status: Status code when an idempotency key returns an existing job.
        replay_ended: Whether a key whose job failed or was cancelled returns that job, or buys a new one.
        conflict: What the same key with other parameters does.
        conflict_compares: Whether parameters are compared with their defaults filled in, or as they were sent.
        id_field: Name of a job's id in answers.
        status_words: Spelling of the statuses: as in prose, one `l` in canceled, capitals, or other words.
        extra_status: An undocumented status that a job shows between stages, as a review would.
        paused_stage: Whether a paused job names the stage that ended or the one that would come next.
        stop_ends: What a job is after `stop_at_stage`.
        stop_at: Whether the named stage still runs.
        pause_pending: Whether a job that has not started can be paused.
        cancel_paused: Whether a paused job can be cancelled.
        cancel_answer: Body of a cancel: the job, or 204 and nothing.
        cancel_ended: What cancelling an ended job answers.
        retry_cancelled: Whether a cancelled job can be retried.
        retry_charge: Whether a retry reserves what runs again, or the whole job.
        retry_status: The status of a job right after a retry or resume.
        paused_holds_slot: Whether paused jobs count as concurrent.
        retry_after: Where a 429 says how long to wait.
        not_found: What an unknown job answers.
        bad_job_id: What a job id that is no UUID answers.
        out_of_range: Whether parameters against the rules are refused or silently set right.
        unknown_fields: Whether fields that the documentation does not name are ignored or refused.
        list_shape: Whether paged lists come in the documented envelope or bare.
        item_lists: Whether keyframes and videos come bare or in an `items` object.
        list_items: Whether listed jobs carry everything that a single job does.
        list_order: Order of `GET /jobs`.
        list_lag: Seconds by which `GET /jobs` is behind.
        list_end: How an envelope shows that a list has more pages: its total, `has_more`, or the next page.
        page_most: Items of a page at most, even if a larger page is asked for.
        get_lag: Seconds after its creation during which a job is not found.
        in_flight: Seconds after the first request during which the same key is answered with 409, as in progress.
        video_lag: Seconds after its end during which a completed job shows no final video.
        id_case: Whether ids are compared with their case, without it, or without it and shown in capitals in lists.
        human_review: Whether jobs may ask for a review, and what follows each stage then.
        status_filter: Whether `status` filters, matches nothing, or is ignored.
        page_size_over: What a page size over 100 does.
        timestamps: Form of timestamps.
        keyframe_done: Status of a keyframe that passed.
        job_keyframes: Whether a job carries its keyframes too.
        nulls: Whether fields without a value are null or missing.
        scores: Quality scores from 0 to 1, in percent, or not shown.
        suggest_form: Whether suggested fields are at the top level or in an object.
        webhook_url_shown: Whether reading the webhook shows its URL.
        template_limit: What the 21st template answers.
        output_urls: Whether output URLs last, or are signed for `url_lifetime` seconds.
        url_lifetime: Lifetime in seconds of an expiring URL.
        transaction_balance: What the balances in a transaction row count.
        settle_rows: Whether settling releases the difference, or the whole before it consumes.
        voice_line: Whether a persona's own voice costs 15 credits, or nothing.
        cancel_consumes: Whether cancelling charges the stages that ended, or releases everything.
        unknown_music: What a job with a track that is deleted or unknown answers.
        upload_over: Status for a file that is too large.
        estimate_form: Name of the sum in an estimate, or that there is no such endpoint.
        webhook_signer: Whose secret signs deliveries to a job's own URL.
        webhook_signature: Form of the signature header.
        webhook_timestamp: Form of the timestamp header.
        webhook_stamp: Whether retries are stamped and signed anew.
    """

    models: Literal["all", "kling_only"] = "all"
    create_status: Literal[201, 200, 202] = 201
    replay_status: Literal[200, 201, 409] = 200
    replay_ended: Literal["return", "new"] = "return"
    conflict: Literal["409", "422", "return"] = "409"
    conflict_compares: Literal["effective", "sent"] = "effective"
    id_field: Literal["job_id", "id", "both"] = "job_id"
    status_words: Literal["documented", "american", "upper", "other"] = "documented"
    extra_status: Literal["", "awaiting_review"] = ""
    paused_stage: Literal["finished", "next"] = "finished"
    stop_ends: Literal["paused", "completed"] = "paused"
    stop_at: Literal["through", "before"] = "through"
    pause_pending: Literal["refused", "allowed"] = "refused"
    cancel_paused: Literal["allowed", "refused"] = "allowed"
    cancel_answer: Literal["job", "empty"] = "job"
    cancel_ended: Literal["409", "404", "200"] = "409"
    retry_cancelled: Literal["refused", "allowed"] = "refused"
    retry_charge: Literal["stages", "whole"] = "stages"
    retry_status: Literal["pending", "processing"] = "pending"
    paused_holds_slot: Literal["no", "yes"] = "no"
    retry_after: Literal["header_and_details", "header", "details", "error", "top"] = "header_and_details"
    not_found: Literal["envelope", "detail", "forbidden"] = "envelope"
    bad_job_id: Literal["404", "422"] = "404"
    out_of_range: Literal["refuse", "coerce"] = "refuse"
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    list_shape: Literal["envelope", "array"] = "envelope"
    item_lists: Literal["array", "items"] = "array"
    list_items: Literal["brief", "full"] = "brief"
    list_order: Literal["newest", "oldest", "updated"] = "newest"
    list_lag: float = 0.0
    list_end: Literal["total", "has_more", "next_page", "next_cursor", "next_link"] = "total"
    page_most: Literal[100, 50, 10, 5, 2] = 100
    get_lag: float = 0.0
    in_flight: float = 0.0
    video_lag: float = 0.0
    id_case: Literal["exact", "any", "capitals"] = "exact"
    human_review: Literal["off", "modes"] = "off"
    status_filter: Literal["works", "nothing", "ignored"] = "works"
    page_size_over: Literal["422", "clamp"] = "422"
    timestamps: Literal["micros", "seconds", "offset"] = "micros"
    keyframe_done: Literal["approved", "completed"] = "approved"
    job_keyframes: Literal["no", "yes"] = "no"
    nulls: Literal["shown", "omitted"] = "shown"
    scores: Literal["unit", "percent", "hidden"] = "unit"
    suggest_form: Literal["top", "nested"] = "top"
    webhook_url_shown: Literal["yes", "no"] = "yes"
    template_limit: Literal["409", "400"] = "409"
    output_urls: Literal["lasting", "expiring"] = "lasting"
    url_lifetime: float = 3600.0
    transaction_balance: Literal["available", "balance"] = "available"
    settle_rows: Literal["difference", "whole"] = "difference"
    voice_line: Literal["persona", "none"] = "persona"
    cancel_consumes: Literal["nothing", "stages"] = "nothing"
    unknown_music: Literal["422", "404", "ignored"] = "422"
    upload_over: Literal["413", "400"] = "413"
    estimate_form: Literal["total_credits", "total", "estimated_credits", "missing"] = "total_credits"
    webhook_signer: Literal["tenant", "unsigned"] = "tenant"
    webhook_signature: Literal["hex", "sha256="] = "hex"
    webhook_timestamp: Literal["seconds", "millis", "iso"] = "seconds"
    webhook_stamp: Literal["fresh", "first"] = "fresh"

    def with_values(self, values: Mapping[str, Any]) -> "Readings":
        """Return a copy in which the named switches are set.

        Args:
            values: Switch name to value; values may be text, as from a command line.

        Raises:
            ValueError: A name or value that does not exist; the message lists what does.
        """
        changed: dict[str, Any] = {}
        for name, value in values.items():
            if name not in _TYPES:
                known = ", ".join(sorted(_TYPES))
                raise ValueError(f"no reading is called {name!r}; there are: {known}")
            changed[name] = _read(name, value)
        return dataclasses.replace(self, **changed)

    def as_dict(self) -> dict[str, Any]:
        """Return every switch with its value."""
        return dataclasses.asdict(self)


_TYPES = typing.get_type_hints(Readings)


def choices(name: str) -> tuple[Any, ...]:
    """Return the values that a switch can take; empty for one that takes a number of seconds."""
    return typing.get_args(_TYPES[name])


def names() -> tuple[str, ...]:
    """Return the names of all switches."""
    return tuple(_TYPES)


def from_texts(texts: Iterable[str]) -> dict[str, str]:
    """Read the switches from `name=value` texts.

    Raises:
        ValueError: A text without `=`.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"write a reading as name=value, not {text!r}")
        values[name.strip().replace("-", "_")] = value.strip()
    return values


def _read(name: str, value: Any) -> Any:
    allowed = choices(name)
    if not allowed:
        seconds = float(value)
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"reading {name} takes a number of seconds from 0, not {value!r}")
        return seconds
    for choice in allowed:
        if str(choice) == str(value):
            return choice
    raise ValueError(f"reading {name} is one of {', '.join(repr(str(c)) for c in allowed)}, not {value!r}")
