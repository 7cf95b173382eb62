# SPDX-License-Identifier: Apache-2.0
"""The HTTP surface as values: a `Request` comes in, a `Reply` goes out, nothing is read from or written to a socket."""
