# SPDX-License-Identifier: Apache-2.0
"""The HTTP surface as values: a `Request` is taken, a `Reply` is given, nothing is read from or written to a socket.

Allowed here: one more endpoint that the service documents, or one more way in which an answer goes wrong.
"""
