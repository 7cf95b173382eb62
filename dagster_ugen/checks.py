# SPDX-License-Identifier: Apache-2.0
"""Asset checks over what was made: scores, counts, length and shape, credits, and whether links still answer.

What a check decides is a pure function of what is known of a partition; asking for it is in `checking`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen import _compat
from dagster_ugen.assets import UGenVideos, no_beta_warnings
from dagster_ugen.outputs import Output
from dagster_ugen.resource import UGenResource, bound

if TYPE_CHECKING:
    from dagster_ugen.checking import Known

_SLACK_SECONDS = 1.0
_SLACK_SHAPE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenChecks:
    """Which checks, and what they ask for.

    Args:
        min_score: Lowest quality score, 0 to 1, of every keyframe and segment; None leaves the scores alone.
        counts: Whether N segments and N+1 keyframes are there.
        file: Whether the stored video has the length and shape that were ordered; needs a destination, and PyAV.
        credits: Whether no more was consumed than was estimated.
        urls: Whether the service's links still answer; one request each.
        blocking: Whether a check that fails keeps what hangs on its asset from running, in the same run; or the names
            of the checks of which that holds. The results are there all the same, since they are recorded first.
    """

    min_score: float | None = 0.55
    counts: bool = True
    file: bool = True
    credits: bool = True
    urls: bool = False
    blocking: bool | Collection[str] = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found."""

    passed: bool
    told: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what it is of, and how it decides."""

    name: str
    output: Output
    description: str
    judge: "Callable[[Known], Verdict]"
    blocking: bool = False


def checks_of(asked: UGenChecks) -> list[Check]:
    """The checks that are asked for.

    Raises:
        ValueError: `blocking` names a check that is not among them.
    """
    found = _chosen(asked)
    names = {check.name for check in found}
    blocking = asked.blocking if not isinstance(asked.blocking, bool) else names if asked.blocking else ()
    if unknown := sorted(set(blocking) - names):
        raise ValueError(
            f"blocking: {', '.join(unknown)} is not among the checks that are asked for: {', '.join(sorted(names))}"
        )
    return [replace(check, blocking=check.name in blocking) for check in found]


def _chosen(asked: UGenChecks) -> list[Check]:
    found: list[Check] = []
    if asked.min_score is not None:
        least = asked.min_score
        for name, output in (("keyframe_scores", Output.KEYFRAMES), ("segment_scores", Output.VIDEOS)):
            found.append(
                Check(
                    name,
                    output,
                    f"Every quality score is at least {least:.2f}.",
                    lambda known, output=output: judge_scores(known.scores(output), least=least),  # type: ignore[misc]
                )
            )
    if asked.counts:
        found.append(
            Check(
                "keyframe_count",
                Output.KEYFRAMES,
                "One keyframe more than segments.",
                lambda known: judge_count(known.count(Output.KEYFRAMES), known.segments + 1, "keyframes"),
            )
        )
        found.append(
            Check(
                "segment_count",
                Output.VIDEOS,
                "As many segments as were ordered.",
                lambda known: judge_count(known.count(Output.VIDEOS), known.segments, "segments"),
            )
        )
    if asked.file:
        found.append(
            Check(
                "length_and_shape",
                Output.FINAL_VIDEO,
                "The stored video has the length and shape that were ordered.",
                lambda known: judge_file(known.final_file, seconds=known.seconds, shape=known.shape),
            )
        )
    if asked.credits:
        found.append(
            Check(
                "credits_within_estimate",
                Output.FINAL_VIDEO,
                "No more credits were consumed than estimated.",
                lambda known: judge_credits(known.consumed, known.estimated()),
            )
        )
    if asked.urls:
        found.append(
            Check("urls_alive", Output.FINAL_VIDEO, "The links answer.", lambda known: judge_links(known.dead_links()))
        )
    return found


def build_ugen_asset_checks(
    videos: UGenVideos, *, checks: UGenChecks | None = None, resource: UGenResource | None = None
) -> list[dg.AssetChecksDefinition]:
    """Checks over what was made, one result for each partition. Free.

    Args:
        videos: The assets.
        checks: Which, and what they ask for.
        resource: The account; else the resource `ugen` of the definitions.

    Raises:
        ValueError: `blocking` names a check that is not asked for.

    Examples:
        ```python
        dg.Definitions(assets=assets_of(videos), asset_checks=build_ugen_asset_checks(videos))
        ```
    """
    asked = checks_of(checks or UGenChecks())
    if not asked:
        return []
    made = {(videos.key_of(check.output), check.name): check for check in asked}
    partitions_def = videos.props.partitions_def

    def body(context: dg.AssetCheckExecutionContext, ugen: UGenResource) -> Iterator[dg.AssetCheckResult]:
        from dagster_ugen.checking import evaluate

        selected = {
            (key.asset_key, key.name): made[key.asset_key, key.name] for key in context.selected_asset_check_keys
        }
        yield from evaluate(context, videos, ugen, selected)

    with no_beta_warnings():
        specs = [
            _compat.partitioned_check(
                name=check.name,
                asset=videos.key_of(check.output),
                description=check.description,
                blocking=check.blocking,
                partitions_def=partitions_def,
            )
            for check in asked
        ]
        return [
            dg.multi_asset_check(
                name="_".join([*videos.props.key_prefix, "ugen_checks"]),
                specs=specs,
                can_subset=True,
            )(bound(body, resource))
        ]


def judge_scores(scores: Sequence[float | None], *, least: float) -> Verdict:
    """Whether every score is high enough. A completed job does not prove that its own checks passed."""
    if not scores or any(score is None for score in scores):
        missing = sum(score is None for score in scores)
        return Verdict(False, f"{missing or 'all'} of the scores are not known, so nothing says that they are good")
    low = [f"{index}: {score:.2f}" for index, score in enumerate(scores) if score is not None and score < least]
    if low:
        return Verdict(False, f"below {least:.2f}: {', '.join(low)}; `regenerate` buys another one")
    return Verdict(True, f"{len(scores)} scores, none below {least:.2f}")


def judge_count(found: int, wanted: int, what: str) -> Verdict:
    """Whether as many are there as there should be."""
    return Verdict(found == wanted, f"{found} {what}, {wanted} were to be made")


def judge_file(file: Mapping[str, Any] | None, *, seconds: float, shape: float | None) -> Verdict:
    """Whether the stored video is as long, and as wide to its height, as was ordered.

    Args:
        file: Its `duration`, `width` and `height`; None where nothing is stored.
        seconds: The length that was ordered.
        shape: Width by height; None where any will do.
    """
    if file is None:
        return Verdict(False, "nothing is stored that could be measured; give the assets a destination")
    length, width, height = file.get("duration"), file.get("width"), file.get("height")
    if not length or not width or not height:
        return Verdict(False, "the file could not be measured; install ugen-provider[media]")
    wrong = []
    if abs(length - seconds) > max(_SLACK_SECONDS, 0.1 * seconds):
        wrong.append(f"{length:.1f} s long, {seconds:.1f} s were ordered")
    if shape is not None and abs(width / height - shape) > _SLACK_SHAPE:
        wrong.append(f"{width}x{height}, which is not the shape that was ordered")
    return Verdict(not wrong, "; ".join(wrong) or f"{length:.1f} s, {width}x{height}")


def judge_credits(consumed: int | None, estimated: int | None) -> Verdict:
    """Whether it cost no more than was estimated."""
    if consumed is None or estimated is None:
        return Verdict(False, "what it cost, or was estimated to cost, is not known")
    return Verdict(consumed <= estimated, f"{consumed} credits, {estimated} were estimated")


def judge_links(dead: Sequence[str]) -> Verdict:
    """Whether all links answer."""
    return Verdict(not dead, f"no answer from {', '.join(dead)}" if dead else "all links answer")
