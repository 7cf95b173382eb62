# SPDX-License-Identifier: Apache-2.0
"""What the demo left behind, read from its files, and whether it is what was ordered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ugen_provider.cli.demo.watch import Pass
from ugen_provider.core.media import Manifest
from ugen_provider.core.media.manifest import MANIFEST_NAME, read_manifest

DEFAULT_ASPECT = "9:16"
DEFAULT_SEGMENT_SECONDS = 8
TOLERANCE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One job's files, with the side that ordered it."""

    side: str
    folder: Path
    manifest: Manifest

    @property
    def video(self) -> Path | None:
        """The final video's file, None if the manifest names none."""
        final = self.manifest.file("final")
        return self.folder / final.path if final else None


def read_results(output: Path, *, sides: Sequence[str]) -> list[Result]:
    """Read all manifests.

    Args:
        output: The demo's output folder, with a folder per side.
        sides: The sides.

    Returns:
        A result per job, by side and then by product.
    """
    found = []
    for side in sides:
        for path in sorted((output / side).glob(f"*/*/{MANIFEST_NAME}")):
            manifest = read_manifest(path.read_bytes())
            if manifest is not None:
                found.append(Result(side=side, folder=path.parent, manifest=manifest))
    return found


def problems_of(results: Sequence[Result], *, products: Sequence[str], sides: Sequence[str]) -> list[str]:
    """What is not as it was ordered.

    Args:
        results: What was found.
        products: The ids of the products that each side had to order.
        sides: The sides.

    Returns:
        A sentence per problem; empty when everything held.
    """
    found = []
    for side in sides:
        for product in products:
            own = [each for each in results if each.side == side and each.manifest.product_id == product]
            if len(own) != 1:
                found.append(f"{side}: {len(own)} results of product {product}, expected 1")
            found += [f"{side}, product {product}: {problem}" for each in own for problem in _problems_of_one(each)]
    return found


def _problems_of_one(result: Result) -> list[str]:
    final = result.manifest.file("final")
    if final is None or result.video is None or not result.video.exists():
        return ["no final video"]
    if not final.width or not final.height or not final.duration:
        return ["the final video was not measured (is PyAV installed?)"]
    found = []
    job = result.manifest.job
    across, down = str(job.get("aspect_ratio") or DEFAULT_ASPECT).split(":")
    if abs(final.width / final.height * int(down) / int(across) - 1) > TOLERANCE:
        found.append(f"the final video is {final.width}x{final.height}, expected {across}:{down}")
    seconds = int(job["segment_count"]) * int(job.get("segment_duration") or DEFAULT_SEGMENT_SECONDS)
    if abs(final.duration / seconds - 1) > TOLERANCE:
        found.append(f"the final video lasts {final.duration:.1f} s, expected {seconds} s")
    if not any(file.kind == "keyframe" for file in result.manifest.files):
        found.append("no keyframe picture")
    return found


def problems_of_pass(done: Pass, *, orders: int, sides: Sequence[str]) -> list[str]:
    """What a pass bought that it should not have.

    Args:
        done: The pass.
        orders: How many products each side orders.
        sides: The sides.

    Returns:
        A sentence per problem; empty when everything held.
    """
    found = [
        f"{done.name}: {side} has created {done.created.get(side, 0)} jobs, expected {orders}"
        for side in sides
        if done.created.get(side, 0) != orders
    ]
    if not done.bought and done.spent:
        found.append(f"{done.name}: nothing was bought, but {done.spent} credits are gone")
    if done.bought and done.name == "again":
        found.append(f"{done.name}: {done.bought} jobs were bought a second time")
    return found
