# SPDX-License-Identifier: Apache-2.0
"""Sensors: they wait for a job that somebody else bought, and never change it.

What may come in: one more thing to wait for. What buys or steers is an operator.
"""
