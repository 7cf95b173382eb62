# SPDX-License-Identifier: Apache-2.0
"""What every door stands on: the Airflow rooms, `dagster_ugen` and the command line.

Here live the HTTP client (`api`), what happens to one job (`jobs`), product feeds (`feeds`), many jobs (`batch`) and
their outputs (`media`). Nothing here imports Airflow, Dagster, the emulator or the command line, and inside, the
arrows point one way: `batch` to `feeds`, `jobs` and `media`, and those to `api`.

What may come in: what more than one door needs. What only Airflow, Dagster or a terminal knows stays with them.
"""
