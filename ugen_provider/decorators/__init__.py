# SPDX-License-Identifier: Apache-2.0
"""TaskFlow decorators: a function that returns what the operator of the same kind would be given."""
