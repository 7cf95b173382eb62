# SPDX-License-Identifier: Apache-2.0
"""Sensors: they wait for a job that somebody else bought, and never change it."""
