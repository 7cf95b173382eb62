# SPDX-License-Identifier: Apache-2.0
"""What `dg scaffold defs dagster_ugen.UGenVideosComponent` writes."""

from dagster.components import Scaffolder, ScaffoldRequest, scaffold_component
from pydantic import BaseModel, Field


class UGenVideosParams(BaseModel):
    """What may be said when scaffolding."""

    feed: str = Field(default="feed.xml", description="The product feed: a file beside defs.yaml, or a URL.")
    partitions: str = Field(default="ugen_products", description="Name of the dynamic partitions.")
    storage: str = Field(default="videos", description="Where results are stored: a folder or an fsspec URL.")
    segment_count: int = Field(default=3, ge=1, le=10, description="Segments of each video.")


class UGenVideosScaffolder(Scaffolder[UGenVideosParams]):
    """Writes a `defs.yaml` that loads once the environment variable `UGEN_API_KEY` is set."""

    @classmethod
    def get_scaffold_params(cls) -> type[UGenVideosParams]:
        """What may be said when scaffolding."""
        return UGenVideosParams

    def scaffold(self, request: ScaffoldRequest[UGenVideosParams]) -> None:
        """Write the YAML.

        The key is asked for by the function form of `env`: the attribute form gives nothing, without a word, where the
        variable is not set.
        """
        params = request.params or UGenVideosParams()
        scaffold_component(
            request,
            {
                "api_key": "{{ env('UGEN_API_KEY') }}",
                "feed": params.feed,
                "job": {"segment_count": params.segment_count},
                "partitions": {"name": params.partitions},
                "storage": params.storage,
            },
        )
