# SPDX-License-Identifier: Apache-2.0
"""What a job costs, by component and by stage."""

from ugen_provider.emulator.settings import Prices
from ugen_provider.emulator.world.pipeline import Plan
from ugen_provider.emulator.world.spec import JobSpec
from ugen_provider.emulator.world.stages import AUDIO, CAPTIONS, CONCAT, GENERATION, INIT, STAGES


def segment_cost(spec: JobSpec, prices: Prices) -> int:
    """Credits of one segment: flat for Veo, by the second for Kling."""
    if spec.model in prices.per_second:
        return prices.per_second[spec.model] * spec.segment_duration
    return prices.per_segment[spec.model]


def voice_cost(spec: JobSpec, prices: Prices, *, persona_voice: bool) -> int:
    """Credits of the voice-over."""
    if spec.own_voice:
        return prices.own_voice
    return prices.persona_voice if persona_voice else 0


def breakdown(spec: JobSpec, prices: Prices, *, persona_voice: bool) -> dict[str, int]:
    """Return the credits of each component of a whole job; their sum is what is reserved."""
    buffer = (spec.keyframe_attempts - 1) * prices.keyframe * (spec.segments + 1)
    buffer += (spec.video_attempts - 1) * segment_cost(spec, prices) * spec.segments
    return {
        "video": segment_cost(spec, prices) * spec.segments,
        "keyframes": prices.keyframe * (spec.segments + 1),
        "voice_over": voice_cost(spec, prices, persona_voice=persona_voice),
        "music": prices.music if spec.music else 0,
        "captions": prices.custom_captions if spec.custom_captions else 0,
        "post_processing": prices.post_processing,
        "qa_buffer": buffer,
    }


def by_stage(spec: JobSpec, prices: Prices, *, persona_voice: bool) -> list[int]:
    """Return the credits of each stage without any retry of quality assurance."""
    costs = [0] * len(STAGES)
    costs[INIT] = prices.keyframe
    costs[GENERATION] = (prices.keyframe + segment_cost(spec, prices)) * spec.segments
    costs[CONCAT] = prices.post_processing
    costs[AUDIO] = voice_cost(spec, prices, persona_voice=persona_voice) + (prices.music if spec.music else 0)
    costs[CAPTIONS] = prices.custom_captions if spec.custom_captions else 0
    return costs


def reservation(spec: JobSpec, prices: Prices, *, persona_voice: bool, first: int) -> int:
    """Return the most that a run from stage `first` on can cost, which is what it reserves."""
    total = sum(by_stage(spec, prices, persona_voice=persona_voice)[first:])
    keyframe_retries = spec.keyframe_attempts - 1
    if first <= INIT:
        total += keyframe_retries * prices.keyframe
    if first <= GENERATION:
        total += keyframe_retries * prices.keyframe * spec.segments
        total += (spec.video_attempts - 1) * segment_cost(spec, prices) * spec.segments
    return total


def actual(spec: JobSpec, prices: Prices, plan: Plan, *, persona_voice: bool, first: int, last: int) -> int:
    """Return what the stages `first` to `last` of a run really cost, with the retries that it took."""
    total = sum(by_stage(spec, prices, persona_voice=persona_voice)[first : last + 1])
    if first <= INIT <= last:
        total += (len(plan.keyframes[0]) - 1) * prices.keyframe
    if first <= GENERATION <= last:
        total += sum(len(item) - 1 for item in plan.keyframes[1:]) * prices.keyframe
        total += sum(len(item) - 1 for item in plan.segments) * segment_cost(spec, prices)
    return total
