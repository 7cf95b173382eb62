# SPDX-License-Identifier: Apache-2.0
"""The main job, from nothing: a feed becomes videos in both orchestrators, and running it again buys nothing."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ugen_provider.cli.demo.processes import LocalUGen, stop_together
from ugen_provider.cli.demo.sides import AirflowSide, DagsterSide, DemoParts, Side, airflow_keys, demo_parts
from ugen_provider.cli.demo.watch import Pass, Watch
from ugen_provider.core.feeds import FeedOrder, RejectedRow, plan_feed
from ugen_provider.core.media import Manifest, write_gallery
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
    """Read all manifests below a folder.

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
    """Return what is not as it was ordered.

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
    """Return what a pass bought that it should not have.

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


SIDES = ("airflow", "dagster")
STATE = ".state"
REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Options of one run of the demo.

    Attributes:
        output: Where the videos, the gallery and the state go; a second run on it continues from there.
        speed: Emulated seconds a real second.
    """

    output: Path
    speed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Results of all passes of the demo.

    Attributes:
        passes: One after the other.
        deferred: The map indexes of Airflow's tasks that were seen waiting in the triggerer.
    """

    passes: tuple[Pass, ...]
    deferred: tuple[int, ...]


def run_demo(options: DemoOptions, *, console: Console) -> bool:
    """Run it. It spends credits of the local U-Gen only.

    Args:
        options: What is asked for.
        console: Where to print.

    Returns:
        Whether everything held.

    Examples:
        ```python
        run_demo(DemoOptions(output=Path("demo-output"), speed=20), console=Console())
        ```
    """
    started = time.monotonic()
    output = options.output.resolve()
    parts = demo_parts()
    rows = list(plan_feed(parts.feed, job_defaults={"segment_count": 1}))
    products = [row.product_id for row in rows if isinstance(row, FeedOrder)]
    rejected = [row for row in rows if isinstance(row, RejectedRow)]
    console.print(f"{parts.feed.name}: {len(products)} products to film, {len(rejected)} rejected", highlight=False)
    for row in rejected:
        console.print(f"  rejected: {row}", style="yellow", highlight=False)

    ran = _run_passes(options, output=output, parts=parts, products=products, console=console)
    results = read_results(output, sides=SIDES)
    problems = [
        *(problem for done in ran.passes for problem in problems_of_pass(done, orders=len(products), sides=SIDES)),
        *problems_of(results, products=products, sides=SIDES),
    ]
    if any(done.bought for done in ran.passes) and not ran.deferred:
        problems.append("airflow: no task was seen waiting in the triggerer")
    gallery = write_gallery(output)
    report = {
        "passes": [asdict(done) for done in ran.passes],
        "deferred": ran.deferred,
        "rejected": [str(row) for row in rejected],
        "problems": problems,
    }
    (output / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    console.print(_table(results, output=output))
    for problem in problems:
        console.print(f"failed: {problem}", style="red", highlight=False)
    if problems:
        console.print(f"The logs are in {output / STATE}.", highlight=False, soft_wrap=True)
    else:
        seconds = time.monotonic() - started
        console.print(
            f"{len(results)} videos, {seconds:.0f} s. Look at them: {gallery}", highlight=False, soft_wrap=True
        )
    return not problems


def _run_passes(
    options: DemoOptions, *, output: Path, parts: DemoParts, products: Sequence[str], console: Console
) -> DemoResult:
    """Start everything, run the passes, and end everything."""
    state = output / STATE
    keys = airflow_keys(products)
    with ExitStack() as stack:
        ugen = stack.enter_context(LocalUGen(state, speed=options.speed))
        console.print(f"A local U-Gen, {options.speed:g} times as fast, listens on {ugen.url}", highlight=False)
        airflow = AirflowSide(state=state / "airflow", output=output / "airflow", parts=parts, base_url=ugen.base_url)
        dagster = DagsterSide(
            state=state / "dagster",
            output=output / "dagster",
            parts=parts,
            base_url=ugen.base_url,
            products=products,
        )
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(SIDES)))
        # Ended before the pool: what waits in its threads ends with the processes that it waits for.
        stack.callback(stop_together, [airflow.airflow, dagster.dagster])
        console.print("Starting a real Airflow (API server, scheduler, DAG processor, triggerer) and a real Dagster")
        watch = Watch(ugen=ugen, side_of=lambda key: "airflow" if key in keys else "dagster", console=console)
        # If everything was bought already, one pass is enough to see that nothing is bought.
        names = ("again",) if ugen.purchases() else ("first", "again")
        passes = []
        for number, name in enumerate(names):
            steps = [_step(side, prepare=number == 0) for side in (airflow, dagster)]
            if name == "again":
                console.print("Again: the same DAG run is cleared, the same partitions run once more")
            done = watch.run(name, steps=steps, pool=pool)
            _print_pass(done, console=console)
            passes.append(done)
        return DemoResult(passes=tuple(passes), deferred=airflow.deferred())


def _step(side: Side, *, prepare: bool) -> Callable[[], None]:
    def step() -> None:
        if prepare:
            side.prepare()
        side.run()

    return step


def _print_pass(done: Pass, *, console: Console) -> None:
    said = f"{done.bought} jobs bought" if done.bought else "nothing was bought"
    created = ", ".join(f"{done.created.get(side, 0)} by {side}" for side in SIDES)
    console.print(
        f"{said}: {done.credits_before} credits before, {done.credits_after} after; jobs created ever: {created}",
        style="bold",
        highlight=False,
    )


def _table(results: Sequence[Result], *, output: Path) -> Table:
    table = Table("product", "side", "job", "stage", "credits", "keyframe scores", "file")
    for result in results:
        manifest = result.manifest
        table.add_row(
            manifest.product_name or manifest.product_id,
            result.side,
            manifest.job_id[:8],
            manifest.current_stage or manifest.status,
            _or_dash(manifest.credits.consumed),
            " ".join(_or_dash(score) for score in manifest.scores.keyframes),
            str(result.video.relative_to(output)) if result.video else "-",
        )
    return table


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
