# SPDX-License-Identifier: Apache-2.0
"""Reads `multipart/form-data`."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ugen_provider.emulator.api.http import Request
from ugen_provider.emulator.world.refusals import Invalid


class _Reader:
    """Collects the parts as the parser comes upon them."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self._headers: dict[str, bytes] = {}
        self._name = self._value = self._data = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def part_end(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts[name] = self._data
        self._headers, self._data = {}, b""


def parts(request: Request) -> dict[str, bytes]:
    """Return the fields and files of a form by name.

    Raises:
        Invalid: The body is no such form.
    """
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        return {}
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": reader.header_field,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_part_data": reader.part_data,
                "on_part_end": reader.part_end,
            },
        )
        parser.write(request.body)
        parser.finalize()
    except FormParserError as error:
        raise Invalid.one("multipart_invalid", ("body",), f"The form cannot be read: {error}", None) from None
    return reader.parts


def file_of(request: Request) -> bytes:
    """Return the content of the field `file`.

    Raises:
        Invalid: There is none.
    """
    content = parts(request).get("file")
    if content is None:
        raise Invalid.one("missing", ("body", "file"), "Field required", None)
    return content
