# SPDX-License-Identifier: Apache-2.0
"""Hooks: a U-Gen client and a ledger from Airflow connections. Nothing here buys or waits.

Allowed here: what every operator, trigger, sensor and page needs of a connection.
"""
