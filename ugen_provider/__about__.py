# SPDX-License-Identifier: Apache-2.0
"""The version, in the one place from which everything else reads it."""

__version__ = "0.1.0.dev0"
