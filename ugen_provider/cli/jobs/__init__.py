# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs`: one video, or several named ones. What concerns a whole feed is in `cli.feed`.

What may come in: one more thing to do with named jobs, over a flow of `core.jobs`.
"""

from collections.abc import Mapping

from ugen_provider.cli.lazy import Subcommand, lazy_group

_HOME = "ugen_provider.cli.jobs"

COMMANDS: Mapping[str, Subcommand] = {
    "create": Subcommand(
        module=f"{_HOME}.creating", attribute="create_command", summary="Buy a video, once per order. Costs credits."
    ),
    "get": Subcommand(module=f"{_HOME}.reading", attribute="get_command", summary="Show jobs."),
    "list": Subcommand(module=f"{_HOME}.reading", attribute="list_command", summary="List the account's jobs."),
    "watch": Subcommand(module=f"{_HOME}.waiting", attribute="watch_command", summary="Follow jobs until they end."),
    "wait": Subcommand(
        module=f"{_HOME}.waiting", attribute="wait_command", summary="Wait until jobs end; the exit code says how."
    ),
    "cancel": Subcommand(
        module=f"{_HOME}.steering", attribute="cancel_command", summary="Cancel jobs that have not ended."
    ),
    "pause": Subcommand(
        module=f"{_HOME}.steering", attribute="pause_command", summary="Pause jobs after their current stage."
    ),
    "resume": Subcommand(module=f"{_HOME}.steering", attribute="resume_command", summary="Let paused jobs go on."),
    "retry": Subcommand(
        module=f"{_HOME}.steering", attribute="retry_command", summary="Run an ended job again. Costs credits."
    ),
    "keyframes": Subcommand(
        module=f"{_HOME}.reading", attribute="keyframes_command", summary="Show a job's keyframes and their scores."
    ),
    "videos": Subcommand(
        module=f"{_HOME}.reading", attribute="videos_command", summary="Show a job's segments and their scores."
    ),
    "download": Subcommand(
        module=f"{_HOME}.downloading", attribute="download_command", summary="Bring the files of jobs home."
    ),
    "orphans": Subcommand(
        module=f"{_HOME}.orphans", attribute="orphans_command", summary="Find jobs that run and nobody waits for."
    ),
}

jobs_group = lazy_group("jobs", COMMANDS, about="Create, watch, steer and fetch videos.")
