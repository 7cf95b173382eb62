# SPDX-License-Identifier: Apache-2.0
"""Operators for a job's pictures and files: upload, suggest, download. None of them costs credits."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.operators.arguments import is_nothing, is_pending, refusing, require_named, require_one_of
from ugen_provider.operators.base import UGenJobOperator, UGenOperator
from ugen_provider.operators.control import plain_job_id
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.operators.templates import rendered_fields

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.client import UGenClient

Kind = Literal["final", "segments", "keyframes", "thumbnail"]
INCLUDE: tuple[Kind, ...] = ("final", "segments", "keyframes", "thumbnail")


class UGenUploadImageOperator(UGenOperator):
    """Upload a picture that the service cannot reach by itself, once per content. Free; `POST /uploads/product-image`.

    Args:
        image: The picture: a local path, any fsspec URL, or an `ObjectStoragePath`.
        ugen_conn_id: The connection.

    Returns:
        A dict for the create operator's `job`: `product_image_url`.

    Examples:
        >>> UGenUploadImageOperator(task_id="upload", image="s3://shop/lamp.png")
        <Task(UGenUploadImageOperator): upload>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "image")

    def __init__(self, *, image: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image = image
        with refusing():
            require_named("image", image)

    def execute(self, context: Context) -> dict[str, str]:
        """Upload it, unless this task instance uploaded the same content before."""
        with fail_without_retry(self.ugen_conn_id), self.hook.get_conn() as client:
            picture = upload_once(context, client, self.image)
            return {"product_image_url": picture.url}


class UGenSuggestFieldsOperator(UGenOperator):
    """Let the service propose the fields of a script from the picture. Free; `POST /jobs/suggest-fields`.

    Args:
        product_name: What the video is about.
        product_image_url: http(s) address of the picture.
        persona_id: Who speaks.
        interaction_mode: How the product is shown.
        segment_count: Segments, 1 to 10.
        prefer: `script` hands on the script, `selling_points` the points and the call to action; never both, since the
            service ignores the points of a request with a script.
        ugen_conn_id: The connection.

    Returns:
        Fields for the create operator's `job`, with the name and the picture among them.

    Examples:
        >>> UGenSuggestFieldsOperator(
        ...     task_id="suggest", product_name="Lamp", product_image_url="https://shop.example/lamp.jpg"
        ... )
        <Task(UGenSuggestFieldsOperator): suggest>
    """

    template_fields: Collection[str] = (
        "ugen_conn_id",
        "product_name",
        "product_image_url",
        "persona_id",
        "interaction_mode",
        "segment_count",
    )

    def __init__(
        self,
        *,
        product_name: str,
        product_image_url: str,
        persona_id: str | None = None,
        interaction_mode: str | None = None,
        segment_count: int | str | None = None,
        prefer: Literal["script", "selling_points"] = "script",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.product_name = product_name
        self.product_image_url = product_image_url
        self.persona_id = persona_id
        self.interaction_mode = interaction_mode
        self.segment_count = segment_count
        self.prefer = prefer
        with refusing():
            self._check_arguments()

    def _check_arguments(self) -> None:
        require_one_of("prefer", self.prefer, ("script", "selling_points"))
        fields = self._fields()
        pending = [name for name, value in fields.items() if is_pending(value)]
        if violations := rules.check(fields, pending=[*pending, *_OPTIONAL_HERE]):
            raise InvalidRequestError(violations)

    def _fields(self) -> dict[str, Any]:
        names = ("product_name", "product_image_url", "persona_id", "interaction_mode", "segment_count")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Ask."""
        with fail_without_retry(self.ugen_conn_id), self.hook.get_conn() as client:
            given = rules.coerce(rendered_fields(self._fields()))
            if violations := rules.check(given, pending=() if "segment_count" in given else _OPTIONAL_HERE):
                raise InvalidRequestError(violations)
            idea = client.jobs.suggest_fields(**given)
        found: dict[str, Any] = {"environment_description": idea.environment_description}
        points = list(idea.key_selling_points or ())
        if self.prefer == "script" and idea.custom_script:
            found["custom_script"] = idea.custom_script
        else:
            found.update(key_selling_points=points or None, cta_text=idea.cta_text)
        return {**given, **{name: value for name, value in found.items() if value}}


_OPTIONAL_HERE = ("segment_count",)


class UGenDownloadOutputsOperator(UGenJobOperator):
    """Download a job's files into storage of your own, with a manifest. Free. Files that exist there are kept.

    Args:
        job_id: The job, or what the create operator returned.
        output_path: A path, a URL, or an `ObjectStoragePath`.
        include: Which kinds: `final`, `segments`, `keyframes`, `thumbnail`.
        product_id: The product, for the folder.
        ugen_conn_id: The connection.

    Returns:
        `job_id`, `manifest_uri` and `files`: the address of each.

    Examples:
        >>> UGenDownloadOutputsOperator(task_id="collect", job_id="{{ params.job_id }}", output_path="s3://videos/")
        <Task(UGenDownloadOutputsOperator): collect>
    """

    template_fields: Collection[str] = ("ugen_conn_id", "job_id", "output_path", "product_id")

    def __init__(
        self,
        *,
        job_id: Any,
        output_path: Any,
        include: Kind | Sequence[Kind] = INCLUDE,
        product_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.output_path = output_path
        self.include = (include,) if isinstance(include, str) else tuple(include)
        self.product_id = product_id
        with refusing():
            require_named("job_id", job_id)
            require_named("output_path", output_path)
            for kind in self.include:
                require_one_of("include", kind, INCLUDE)
            if not self.include:
                raise ConfigError(f"include: must name at least one of {', '.join(INCLUDE)}")

    def execute(self, context: Context) -> dict[str, Any]:
        """Download."""
        with fail_without_retry(self.ugen_conn_id):
            job_id = plain_job_id(self.job_id)
            if is_nothing(self.output_path):
                raise ConfigError("output_path: its template rendered to nothing")
            settings = self.hook.get_settings()
            with self.hook.get_conn(config=settings.config) as client:
                from ugen_provider.core.jobs.results import Scores, describe

                job = client.jobs.get(job_id)
                self.publish_job_id(context, settings, job_id=job_id)
                keyframes = job.keyframes or client.jobs.list_keyframes(job_id)
                stored = store_outputs(
                    client,
                    job,
                    self.output_path,
                    keyframes=keyframes,
                    include=self.include,
                    product_id=self.product_id or None,
                )
                self.record_lineage(
                    {**describe(job, scores=Scores.of(job, keyframes=keyframes)), **stored},
                    picture=(job.model_extra or {}).get("product_image_url"),
                )
                return stored


def store_outputs(
    client: Any,
    job: Any,
    output_path: Any,
    *,
    keyframes: Sequence[Any],
    include: Sequence[Kind] = INCLUDE,
    product_id: str | None = None,
    request: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Download a job's files through a client.

    Returns:
        `job_id`, `manifest_uri` and `files`.
    """
    from ugen_provider.core.media import download_outputs
    from ugen_provider.core.media.http import shared_client
    from ugen_provider.core.media.manifest import MANIFEST_NAME

    stored = download_outputs(
        job,
        output_path,
        keyframes=keyframes,
        refresh=lambda: client.jobs.get(job.job_id),
        refresh_keyframes=lambda: client.jobs.list_keyframes(job.job_id),
        include=include,
        product_id=product_id,
        request=request,
        # Plain http means a U-Gen of the user's own, whose links lead to this machine or network.
        allow_private=client.config.base_url.startswith("http://"),
        profile=client.config.profile,
        client=shared_client(client.config.network),
    )
    return {
        "job_id": job.job_id,
        "manifest_uri": f"{stored.location}{MANIFEST_NAME}",
        "files": [f"{stored.location}{file.path}" for file in stored.files],
    }


_KEY = "ugen_picture_"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a task has uploaded.

    Attributes:
        url: What the service calls it.
        identity: The digest of its content, by which a request is recognized at any address.
    """

    url: str
    identity: str


def upload_once(context: Context, client: UGenClient, image: Any) -> Picture:
    """Upload a picture, unless this task instance uploaded the same content before. Free.

    Args:
        context: Airflow's.
        client: Sends it.
        image: A local path, an fsspec URL, or an `ObjectStoragePath`.

    Raises:
        ConfigError: It cannot be read.
    """
    name, content = _read(image)
    identity = hashlib.sha256(content).hexdigest()
    state = context.get("task_state_store")
    known = None if state is None else state.get(_KEY + identity[:24])
    if isinstance(known, str):
        return Picture(known, identity)
    made = client.uploads.create_product_image(content, filename=name)
    if state is not None:
        from ugen_provider.version_compat import NEVER_EXPIRE

        state.set(_KEY + identity[:24], made.url, retention=NEVER_EXPIRE)
    return Picture(made.url, identity)


def _read(image: Any) -> tuple[str, bytes]:
    from ugen_provider.core.api.errors import TransportError
    from ugen_provider.core.media.http import open_named
    from ugen_provider.core.media.origins import OriginError

    if image is None or not str(image).strip():
        raise ConfigError("image: there is none; its template rendered to nothing")
    name = str(image).rstrip("/").rsplit("/", 1)[-1]
    try:
        if hasattr(image, "open"):
            opened: Any = image.open("rb")
        else:
            opened = open_named(str(image))
        with opened as file:
            content: bytes = file.read(_READ_BYTES)
    except (OSError, ValueError, ImportError, OriginError, TransportError) as error:
        raise ConfigError(f"image: {image} cannot be read: {error}") from None
    return name, content


_READ_BYTES = 16 << 20
"""More than the service takes; the client then refuses the picture by its size."""
