# SPDX-License-Identifier: Apache-2.0
"""Text out of the bytes of a feed: encodings by mark, declaration, server or option; a bad byte costs one row."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.sources import ChunkReader, buffered

_PIECE = 1 << 18
_LINES = 1 << 15
"""Characters that are read and split into lines at once."""
MOST_LETTERS = 4 << 20
"""Characters that one line may have."""
_MARKS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"),
          (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))  # fmt: skip
# Web pages and files that say Latin-1 are written in its superset, and databases have names of their own.
_NAMES = {
    "iso8859-1": "cp1252",
    "latin-1": "cp1252",
    "ascii": "utf-8",
    "utf8mb4": "utf-8",
    "utf8mb3": "utf-8",
    "unicode": "utf-8",
    "ansi": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_REFUSED = frozenset({"utf-7", "idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem"})
UNDECODED = re.compile("[\udc80-\udcff\ufffd]")
"""Replacement for a byte that is not of the encoding."""


def known_encoding(name: str, *, source: str) -> str:
    """Return the name of an encoding under which Python decodes it.

    Raises:
        FeedError: There is no such encoding of text.
    """
    plain = name.strip().lower()
    if plain in _NAMES:
        return _NAMES[plain]
    try:
        found = codecs.lookup(plain)
    except (LookupError, ValueError):
        found = None
    if found is None or found.name in _REFUSED or not getattr(found, "_is_text_encoding", True):
        message = f"encoding {name[:40]!r} is not known; such as utf-8, latin-1, cp1252 or utf-16 are"
        raise FeedError(message, source=source)
    return _NAMES.get(found.name, found.name)


def encoding_of(head: bytes, *, stated: str | None, charset: str | None, source: str) -> str:
    """Return the encoding of a text: its byte order mark, else the user's, else the server's, else UTF-8.

    A server that says Latin-1 often says it of everything; bytes that are UTF-8 are not believed to be anything else.

    Args:
        head: The beginning of the bytes.
        stated: As the user named it.
        charset: As the server named it.
        source: The feed, for messages.

    Raises:
        FeedError: The encoding is not known.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if stated is not None:
        return known_encoding(stated, source=source)
    if (wide := _wide(head)) is not None:
        return wide
    if charset is not None and not is_utf8(head):
        return known_encoding(charset, source=source)
    return "utf-8-sig"


def _wide(head: bytes) -> str | None:
    """Return UTF-16 without a mark, as `<` or a letter with a zero byte beside it shows it."""
    if len(head) < 4 or 0 in head[:1] + head[2:3]:
        return "utf-16-be" if len(head) >= 4 and head[0] == head[2] == 0 and head[1] and head[3] else None
    return "utf-16-le" if head[1] == head[3] == 0 else None


def is_utf8(head: bytes) -> bool:
    """Return whether the beginning of a text is UTF-8, perhaps cut in the middle of a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


class UndecodedBytes:
    """How many bytes could not be decoded in this process. While it stays, no value has to be searched for them.

    A bad byte of another thread's feed costs this one time, and nothing else.
    """

    count = 0


UNDECODED_BYTES = UndecodedBytes()


def _keep(error: UnicodeError) -> tuple[str | bytes, int]:
    UNDECODED_BYTES.count += 1
    return codecs.lookup_error("surrogateescape")(error)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    UNDECODED_BYTES.count += 1
    return codecs.replace_errors(error)


codecs.register_error("ugen.keep", _keep)
codecs.register_error("ugen.replace", _replace)


def _plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


class TextReader:
    """Lines of text out of bytes, bounded.

    Args:
        file: The bytes.
        source: The feed, for messages.
        encoding: Of the bytes, by `encoding_of`.

    Attributes:
        undecoded_before: The count of `UNDECODED_BYTES` before this text.
        line: Lines read so far.
    """

    def __init__(self, file: io.BufferedReader, *, source: str, encoding: str) -> None:
        self._source = source
        self.encoding = encoding
        # UTF-16 has no way to keep a bad byte; every other codec keeps it as half a surrogate pair.
        self._errors = "ugen.replace" if "16" in encoding or "32" in encoding else "ugen.keep"
        self._text = io.TextIOWrapper(file, encoding=encoding, errors=self._errors, newline="")
        self.undecoded_before = UNDECODED_BYTES.count
        self.line = 0

    def lines(self) -> Iterator[str]:
        """Yield the lines, with their ends.

        Raises:
            FeedError: A line is longer than any product, or the text ends in the middle of a character.
        """
        read: Callable[[int], str] = self._text.read
        rest = read(_LINES)
        first = rest.partition("\n")[0]
        if "\n" in rest and "\r" in first[:-1] and '"' not in first:  # ends of lines of several systems
            read = self._read_with_plain_ends
            rest = _plain_ends(rest + self._text.read(1))
        end = "\n" if "\n" in rest or "\r" not in rest else "\r"
        while True:
            lines = rest.split(end)
            rest = lines.pop()
            for line in lines:
                self.line += 1
                yield line + end
            if len(rest) > MOST_LETTERS:
                message = f"a line is longer than {MOST_LETTERS:,} characters; this is no product feed"
                raise FeedError(message, source=self._source, line=self.line + 1)
            piece = read(_LINES)
            if not piece:
                break
            rest += piece
        if rest.strip("\x1a"):  # the end of a file, as DOS marked it
            self.line += 1
            if rest[-1] == "\ufffd" or "\udcc2" <= rest[-1] <= "\udcf4":
                message = f"is cut off in the middle of a character of {self.encoding.removesuffix('-sig')}"
                raise FeedError(message, source=self._source, line=self.line)
            yield rest

    def _read_with_plain_ends(self, size: int) -> str:
        piece = self._text.read(size)
        return _plain_ends(piece + self._text.read(1) if piece.endswith("\r") else piece)

    def pieces(self) -> Iterator[str]:
        """Yield the text in pieces of any length."""
        while piece := self._text.read(_PIECE):
            yield piece

    def as_utf8(self) -> io.BufferedReader:
        """Return the same text as a file of UTF-8; bytes that are not of the encoding stay what they are."""
        return buffered(ChunkReader(piece.encode("utf-8", "surrogateescape") for piece in self.pieces()))

    def undecodable(self) -> str:
        """Return the rule that a value with a bad byte breaks."""
        return f"has a byte that is not {self.encoding.removesuffix('-sig')}; name the encoding, such as latin-1"
