# SPDX-License-Identifier: Apache-2.0
"""A local U-Gen: for the demo, for our tests and for users' own tests.

`world` is the service without I/O: clock, pipeline, credits, jobs, every switch. `api` turns a request value into a
reply value. Around them are thin edges: `server` (Starlette, and uvicorn in a thread), `cli` (`ugen emulator`),
`pytest_plugin` and `transport` (in-process, for httpx).

Written from the service's documentation, never from our client: this package imports nothing else of ours, and no
HTTP client, except in the pytest plugin and the transport.

Allowed here: what the service is documented to do, or plausibly does, as a switch in `world.readings`.
"""
