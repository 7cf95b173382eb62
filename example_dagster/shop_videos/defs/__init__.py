# SPDX-License-Identifier: Apache-2.0
"""Definitions that `dg` finds by themselves."""
