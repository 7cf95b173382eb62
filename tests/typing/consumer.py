# SPDX-License-Identifier: Apache-2.0
"""A consumer's module: it is type-checked in strict mode by `test_consumer`, and never run."""

import asyncio

from ugen_provider import (
    AsyncUGenClient,
    CreateJob,
    Job,
    JobWatcher,
    Purchase,
    ResponseMetadata,
    RetryPolicy,
    UGenClient,
    UGenError,
    buy,
    buy_async,
)


def show(job: Job) -> None:
    print(job.job_id, job.status, job.state.value, job.final_video_url)


def blocking() -> str | None:
    with UGenClient(api_key="k", retries=RetryPolicy(total=60.0), service_profile={"first_page": 0}) as client:
        lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=2)
        job = client.jobs.create(lamp)
        job = client.jobs.create({"product_name": "Lamp", "product_image_url": "https://x.example", "segment_count": 1})
        job = client.jobs.create(
            product_name="Lamp",
            product_image_url="https://shop.example/l.jpg",
            segment_count=2,
            key_selling_points=["light", "warm"],
            video_model="kling3_pro",
            qai_mode="a word that the service adds later",
        )
        done = client.jobs.wait(job, timeout=3600, on_progress=show)
        for each in client.jobs.list(status="completed", limit=10, page_size=50):
            show(client.jobs.get(each))
        try:
            bought: Purchase = buy(client, lamp, name="lamp", on_progress=show)
        except UGenError as error:
            print(error.retryable, error.request_id, error.idempotency_key, error.body)
            return None
        fresh = client.with_options(timeout=5.0, retries=0, headers={"X-Trace": "t"}).jobs.get(job)
        metadata: ResponseMetadata = fresh.response_metadata
        print(metadata.request_id, metadata.rate_limits.get("x-ratelimit-remaining"))
        print(client.jobs.download(fresh, to="videos", include=["final"]).uri("final"))
        print([row.amount for row in client.credits.transactions(job_id=fresh)])
        print(client.credits.estimate({"segment_count": 2}, video_model="veo3").total_credits)
        left: int = client.credits.balance().available_credits
        print(left, bought.outcome.value)
        return done.final_video_url


async def awaited() -> None:
    async with AsyncUGenClient(api_key="k") as client:
        job = await client.jobs.create(product_name="L", product_image_url="https://x.example", segment_count=1)
        outcome = await JobWatcher(client).wait(job)
        manifest = await client.with_options(retries=RetryPolicy(attempts=2)).jobs.download(job, to="s3://videos/")
        print(manifest.uri("final"))
        bought = await buy_async(client, {"product_name": "L"}, name="lamp", on_progress=show)
        print(outcome.job.job_id, bought.job.job_id)
        async for each in client.jobs.list(limit=3):
            show(each)


if __name__ == "__main__":
    blocking()
    asyncio.run(awaited())
