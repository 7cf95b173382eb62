# SPDX-License-Identifier: Apache-2.0
"""The U-Gen HTTP API: endpoints, models, errors and retries, in a sync and an async client.

One call passes through five modules. `async_client` has a method for each endpoint of `endpoints`: the request, and how
its answer is parsed. It sends the request until it is answered for good, as `retrying` decides. `transport` sends one
request; it is the only module that names httpx. `answers` reads the answer as a value or as an error. The sync `client`
is generated from the async one by `scripts/unasync.py`. See ADR 8.

Allowed here: one endpoint, one model, one error. What happens to a job over several calls is in `core.jobs`.
"""
