# SPDX-License-Identifier: Apache-2.0
"""The demo: a feed becomes videos in a real Airflow and a real Dagster, on a local U-Gen.

The demo starts programs and checks their results, by the means that a user has: commands, REST,
files. The same harness serves the tests in `tests/real`. The other packages import nothing from here, and no
Airflow or Dagster is imported into this process.

Allowed here: one more way to start, watch or ask a real process, used by the demo or by `tests/real`.
"""
