# SPDX-License-Identifier: Apache-2.0
"""The files that the demo runs: the repository's own, or the copies of them in an installed wheel."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PACKAGED = Path(__file__).parent / "files"


@dataclass(frozen=True, kw_only=True)
class DemoParts:
    """The feed and the two pipelines.

    Attributes:
        feed: A Google Merchant feed.
        dag: The Airflow DAG file.
        definitions: The file with the Dagster definitions.
    """

    feed: Path
    dag: Path
    definitions: Path


def demo_parts() -> DemoParts:
    """Find them.

    Returns:
        The paths.

    Raises:
        FileNotFoundError: Neither the repository nor the wheel has them.
    """
    checkout = DemoParts(
        feed=REPOSITORY / "examples" / "feed.xml",
        dag=REPOSITORY / "example_dags" / "feed_to_videos.py",
        definitions=REPOSITORY / "example_dagster" / "feed_to_videos.py",
    )
    wheel = DemoParts(
        feed=PACKAGED / "feed.xml",
        dag=PACKAGED / "feed_to_videos.py",
        definitions=PACKAGED / "dagster_feed_to_videos.py",
    )
    for parts in (checkout, wheel):
        if parts.feed.exists() and parts.dag.exists() and parts.definitions.exists():
            return parts
    raise FileNotFoundError(f"the demo's feed and pipelines are neither in {REPOSITORY} nor in {PACKAGED}")
