# SPDX-License-Identifier: Apache-2.0
"""What runs inside Airflow's API server: the page of a job, the webhook endpoint, and the listener for kills.

Unlike tasks and triggers, that process has Airflow's database; `database` is the one module here that reads it. The
plugin is loaded in every process, so what is heavy waits until a request comes.

What may come in: what a person or the service asks of Airflow's own server. What a task needs belongs to the operators.
"""
