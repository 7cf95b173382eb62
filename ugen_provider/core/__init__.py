# SPDX-License-Identifier: Apache-2.0
"""Common base of all entry points: the Airflow packages, `dagster_ugen` and the command line.

Here live the HTTP client (`api`), what happens to one job (`jobs`), product feeds (`feeds`), many jobs (`batch`) and
their outputs (`media`). Nothing here imports Airflow, Dagster, the emulator or the command line, and inside, the
arrows point one way: `batch` to `feeds`, `jobs` and `media`, and those to `api`.

Allowed here: code that several entry points need. Code that knows Airflow, Dagster or a terminal stays there.
"""
