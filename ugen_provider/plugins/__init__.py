# SPDX-License-Identifier: Apache-2.0
"""The plugin that runs inside Airflow's API server: the page of a job, the webhook endpoint, and the listener.

Unlike tasks and triggers, that process has Airflow's database; `database` is the one module that reads it. Every
process of Airflow loads its plugins, so expensive imports wait until a request comes.

Allowed here: what a person or the service asks of Airflow's own server.
"""
