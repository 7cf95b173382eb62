# SPDX-License-Identifier: Apache-2.0
"""TaskFlow decorators: a function that returns what the operator of the same kind would be given.

Allowed here: a decorator for an operator that exists, and nothing that the operator does not do.
"""
