# SPDX-License-Identifier: Apache-2.0
"""Operators. Each describes an order or an action, checks it, and passes it to the purchase protocol in `core.jobs`.

`jobs` is the module that users import from. Modules here import neither an HTTP client nor models when they are loaded,
since DAG files are parsed all the time.

Allowed here: another action on a job, as another operator.
"""
