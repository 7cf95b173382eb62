# SPDX-License-Identifier: Apache-2.0
"""The ledger: one SQL store of all orders, on SQLite for one machine or on PostgreSQL for several.

`record` holds the values (no SQLAlchemy), `orders` keeps them in a database, `store` opens a database, `schema` has its
tables. `core.jobs` decides what is written here and when.

Allowed here: what is stored about orders, attempts and actions. Decisions about jobs belong to `core.jobs`.
"""
