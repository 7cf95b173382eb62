# SPDX-License-Identifier: Apache-2.0
"""A runner in a process of its own, that ends itself with SIGKILL at a named point."""

import json
import os
import signal
import sys
import time

from ugen_provider import AsyncUGenClient
from ugen_provider.core.batch import Budget, FeedRun, FeedRunner
from ugen_provider.ledger import Ledger


def main(order: dict) -> None:
    """Run the feed; `die_at` names a point and how often it is passed before the process ends there."""
    import asyncio

    point, count = order.get("die_at") or ("", 0)
    passed = 0

    def probe(name: str) -> None:
        nonlocal passed
        if name == point:
            passed += 1
            if passed == count:
                os.kill(os.getpid(), signal.SIGKILL)

    async def work() -> dict:
        spec = FeedRun(
            order["feed"],
            catalogue="shop",
            run_id=order["run_id"],
            job_defaults={"segment_count": 1},
            budget=Budget(credits=10_000_000),
            in_flight=50,
            interval=0.1,
        )
        ahead = order.get("ahead", 0.0)
        ledger = Ledger.init(order["ledger"], allow_ephemeral=True, now=lambda: time.time() + ahead)
        async with AsyncUGenClient(api_key="ugen_sk_local", base_url=order["base_url"]) as client:
            report = await FeedRunner(client, ledger, spec, probe=probe).run()
        return {**report.to_dict(), "adds_up": report.adds_up}

    print(json.dumps(asyncio.run(work())))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
