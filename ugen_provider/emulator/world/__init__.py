# SPDX-License-Identifier: Apache-2.0
"""The service as state and pure functions: one clock, a pipeline computed from a seed, the credits, the jobs.

No sockets, no threads, no HTTP in here. The only I/O is the SQLite file in `store`.

Allowed here: one more thing that the service does or remembers, on the one clock.
"""
