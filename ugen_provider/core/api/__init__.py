# SPDX-License-Identifier: Apache-2.0
"""The U-Gen HTTP API: endpoints, models, errors, retries, in a sync and an async client.

How it is built: an `Operation` says what to send and how to read the answer (`operations`); a flow, a generator, says
what happens around it, retries and pages (`flows`); a driver performs what the flow yields, blocking or awaiting
(`_transport`, the only module that names httpx). `UGenClient` is generated from `AsyncUGenClient`. See ADR 2.

What may come in: one endpoint, one model, one error. What happens to a job over several calls lives in `core.jobs`.
"""
