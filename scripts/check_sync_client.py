# SPDX-License-Identifier: Apache-2.0
"""Check that the sync client is what the async one makes."""

import sys

import unasync

if __name__ == "__main__":
    sys.exit(unasync.main(check=True))
