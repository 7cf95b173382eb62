# SPDX-License-Identifier: Apache-2.0
"""Links on a task instance: to the job's page and to its video, both inside Airflow, where the key stays.

Allowed here: one more place to go from a task instance, known from its identity alone.
"""
