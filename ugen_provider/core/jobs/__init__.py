# SPDX-License-Identifier: Apache-2.0
"""One job over its whole life: bought once, waited for, cancelled by whoever may, believed when it reports.

Here lives the money protocol: what was ordered (`scope`, `fingerprint`), what was written down before buying
(`intent`), what to do with an earlier attempt (`buying`, the table; `purchase`, the flow around it), who may cancel
(`cancelling`), how a look is approved (`gate`), how many wait together (`watcher`), and webhooks.

What may come in: a decision about one job, as a pure function or a flow. Endpoints stay in `core.api`, and many jobs in
`core.batch`.
"""
