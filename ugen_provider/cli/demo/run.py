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

from ugen_provider.cli.demo.local_ugen import LocalUGen
from ugen_provider.cli.demo.parts import DemoParts, demo_parts
from ugen_provider.cli.demo.processes import stop_together
from ugen_provider.cli.demo.results import Result, problems_of, problems_of_pass, read_results
from ugen_provider.cli.demo.sides import AirflowSide, DagsterSide, Side, airflow_keys
from ugen_provider.cli.demo.watch import Pass, Watch
from ugen_provider.core.feeds import Order, RejectedRow, plan_feed
from ugen_provider.core.media import write_gallery

SIDES = ("airflow", "dagster")
STATE = ".state"
REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo is asked for.

    Attributes:
        output: Where the videos, the gallery and the state go; a second run on it goes on from there.
        speed: Emulated seconds a real second.
    """

    output: Path
    speed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What the passes were like.

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
        console: Where to tell about it.

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
    products = [row.product_id for row in rows if isinstance(row, Order)]
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
) -> Ran:
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
        # Whoever finds everything bought already needs no second pass to see that nothing is bought.
        names = ("again",) if ugen.purchases() else ("first", "again")
        passes = []
        for number, name in enumerate(names):
            steps = [_step(side, prepare=number == 0) for side in (airflow, dagster)]
            if name == "again":
                console.print("Again: the same DAG run is cleared, the same partitions run once more")
            done = watch.run(name, steps=steps, pool=pool)
            _tell(done, console=console)
            passes.append(done)
        return Ran(passes=tuple(passes), deferred=airflow.deferred())


def _step(side: Side, *, prepare: bool) -> Callable[[], None]:
    def step() -> None:
        if prepare:
            side.prepare()
        side.run()

    return step


def _tell(done: Pass, *, console: Console) -> None:
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
