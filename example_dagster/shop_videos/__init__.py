# SPDX-License-Identifier: Apache-2.0
"""A shop's videos: everything is said in `defs/videos/defs.yaml`."""
