# SPDX-License-Identifier: Apache-2.0
"""What waits in the triggerer, in place of a worker.

A trigger is thin: it waits through the one `JobWatcher` of its event loop, and cancels by the cancelling table. Its
arguments are primitives and connection ids, never a secret or a body; its events are tiny, and nobody believes them
without reading the job again.

What may come in: one more thing to wait for without a worker.
"""
