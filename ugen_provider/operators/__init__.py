# SPDX-License-Identifier: Apache-2.0
"""Operators. Each describes an order or an action, checks it, and hands it to the one money protocol in `core.jobs`.

`jobs` is the address that users import from. Modules here import neither an HTTP client nor models when they are
loaded: DAG files are parsed all the time. What may come in: one more thing to do with a job, as one more operator.
"""
