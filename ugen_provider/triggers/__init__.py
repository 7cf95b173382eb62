# SPDX-License-Identifier: Apache-2.0
"""Triggers: they wait in the triggerer, in place of a worker.

A trigger is thin: it waits through the one `JobWatcher` of its event loop, and cancels by the cancelling table. Its
arguments are primitives and connection ids, never a secret or a request; its events are small, and the task reads the
job again before it believes them.

Allowed here: another wait that needs no worker.
"""
