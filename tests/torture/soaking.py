# SPDX-License-Identifier: Apache-2.0
"""What `test_soak` watches: one loop as a triggerer has one, through which thousands of jobs are bought and waited for.

It prints what it holds every second or so, and at last which jobs were delivered.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path


def held() -> dict[str, float]:
    """Return what this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "at": time.monotonic(),
        "mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "tasks": len(asyncio.all_tasks()),
    }


async def soak(*, base_url: str, jobs: int, at_once: int) -> None:
    """Create jobs and wait for them, `at_once` at a time, by the real triggers."""
    from ugen_provider import AsyncUGenClient, RetryPolicy
    from ugen_provider.triggers.jobs import UGenJobTrigger

    delivered: list[str] = []
    buying = asyncio.Semaphore(8)
    running = {"mapped": iter(range(jobs)), "under_way": 0}

    async def one(client: AsyncUGenClient, number: int) -> None:
        body = {"product_name": f"Lamp {number}", "product_image_url": "https://s.example/l.jpg", "segment_count": 1}
        # In production workers buy, in processes of their own; here the triggers alone are observed.
        async with buying:
            job = await client.jobs.create(body)
        made = UGenJobTrigger(job_id=job.job_id, ugen_conn_id="ugen_default", poll_interval=5)
        path, arguments = made.serialize()
        assert path.endswith(".UGenJobTrigger")
        running["under_way"] += 1
        async for event in UGenJobTrigger(**arguments).run():
            assert event.payload["status"] == "ended", event.payload
        running["under_way"] -= 1
        delivered.append(job.job_id)

    async def worker(client: AsyncUGenClient) -> None:
        for number in running["mapped"]:
            await one(client, number)

    async def report() -> None:
        while True:
            print(json.dumps({**held(), "under_way": running["under_way"], "delivered": len(delivered)}), flush=True)
            await asyncio.sleep(1.0)

    async with AsyncUGenClient(api_key="ugen_sk_local", base_url=base_url, retries=RetryPolicy(attempts=8)) as client:
        reporting = asyncio.create_task(report())
        workers = []
        for _ in range(at_once):
            workers.append(asyncio.create_task(worker(client)))
            await asyncio.sleep(0.002)
        await asyncio.gather(*workers)
        reporting.cancel()
    print(json.dumps({"jobs": delivered}), flush=True)


if __name__ == "__main__":
    asyncio.run(soak(**json.loads(sys.argv[1])))
