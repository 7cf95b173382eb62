# SPDX-License-Identifier: Apache-2.0
"""Pictures and videos that are made when somebody asks for them: small, real, and with the product's name drawn in.

What may come in: one more kind of file that the service serves.
"""
