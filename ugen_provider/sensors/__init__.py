# SPDX-License-Identifier: Apache-2.0
"""Sensors: they wait for a job that another task or process bought, or until nothing is owed.

Allowed here: a condition that a task waits for, and that changes nothing by itself.
"""
