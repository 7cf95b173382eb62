# SPDX-License-Identifier: Apache-2.0
"""The plugin, as Airflow finds it by its entry point `airflow.plugins`."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from ugen_provider.plugins import listener


class UGenPlugin(AirflowPlugin):
    """The listener for kills."""

    name = "ugen"
    listeners = [listener]
