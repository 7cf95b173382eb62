# SPDX-License-Identifier: Apache-2.0
"""One job over its whole life: bought once, waited for, cancelled by those who may, believed when it reports.

Here is the money protocol: the order and its fingerprint (`order`), what to do with an earlier job (`policy`, a pure
table; `purchase`, the flow around it), requests about a job (`actions`, `approval`), its contacts with the outside
(`world`), how many jobs are waited for together (`watcher`, `concurrency`), what is owed (`reconciler`), and webhooks.

Allowed here: a decision about one job, as a pure function or a flow. Endpoints stay in `core.api`, and many jobs in
`core.batch`.
"""
