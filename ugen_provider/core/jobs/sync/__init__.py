# SPDX-License-Identifier: Apache-2.0
"""The blocking twin of `core.jobs`, made by `scripts/unasync.py`. Change the async source instead.

Allowed here: generated modules only.
"""
