# SPDX-License-Identifier: Apache-2.0
"""From an Airflow connection to a U-Gen client.

What may come in: what every operator, trigger, sensor and page needs of the connection. Nothing here buys or waits.
"""
