# SPDX-License-Identifier: Apache-2.0
"""`UGenVideosComponent`: a feed's videos in a few lines of YAML. What may come in: one more thing that YAML can say."""

from dagster_ugen.component.videos import UGenVideosComponent as UGenVideosComponent
