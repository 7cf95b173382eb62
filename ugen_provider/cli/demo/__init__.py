# SPDX-License-Identifier: Apache-2.0
"""The demo: a feed becomes videos in a real Airflow and a real Dagster, on a local U-Gen.

What lives here starts programs and looks at what they did, by the doors that a user has: commands, REST,
files. The same harness serves the tests in `tests/real`. Nothing here is imported by the other rooms, and no
Airflow or Dagster is imported into this process.

What may come in: one more way to start, watch or ask a real process, used by the demo or by `tests/real`.
"""
