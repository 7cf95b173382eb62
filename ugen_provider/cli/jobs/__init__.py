# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs`: one video, or several named jobs. Whole feeds are in `cli.feed`.

Allowed here: one more command about named jobs, built on `core.jobs`.
"""

from collections.abc import Mapping

from ugen_provider.cli.frame import Subcommand, lazy_group

_HOME = "ugen_provider.cli.jobs"

COMMANDS: Mapping[str, Subcommand] = {
    "create": Subcommand(
        module=f"{_HOME}.commands", attribute="create_command", summary="Buy a video, once per order. Costs credits."
    ),
    "get": Subcommand(module=f"{_HOME}.commands", attribute="get_command", summary="Show jobs."),
    "list": Subcommand(module=f"{_HOME}.commands", attribute="list_command", summary="List the account's jobs."),
    "watch": Subcommand(
        module=f"{_HOME}.waits", attribute="watch_command", summary="Show the progress of jobs until they end."
    ),
    "wait": Subcommand(
        module=f"{_HOME}.waits", attribute="wait_command", summary="Wait until jobs end; the exit code says how."
    ),
    "cancel": Subcommand(
        module=f"{_HOME}.commands", attribute="cancel_command", summary="Cancel jobs that have not ended."
    ),
    "pause": Subcommand(
        module=f"{_HOME}.commands", attribute="pause_command", summary="Pause jobs after their current stage."
    ),
    "resume": Subcommand(module=f"{_HOME}.commands", attribute="resume_command", summary="Resume paused jobs."),
    "retry": Subcommand(
        module=f"{_HOME}.commands", attribute="retry_command", summary="Run an ended job again. Costs credits."
    ),
    "keyframes": Subcommand(
        module=f"{_HOME}.commands", attribute="keyframes_command", summary="Show a job's keyframes and their scores."
    ),
    "videos": Subcommand(
        module=f"{_HOME}.commands", attribute="videos_command", summary="Show a job's segments and their scores."
    ),
    "download": Subcommand(
        module=f"{_HOME}.downloads", attribute="download_command", summary="Download the files of one or more jobs."
    ),
}

jobs_group = lazy_group("jobs", COMMANDS, about="Create, follow, control and download videos.")
