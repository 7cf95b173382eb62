# SPDX-License-Identifier: Apache-2.0
"""Addresses of pictures in all the forms in which feeds write them. Pure: nothing is fetched here."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ugen_provider.core.api import rules
from ugen_provider.core.feeds.plain_text import NULLS

# No comma, bar, semicolon or backslash: these may separate several addresses, or be an escape.
_SURELY_HTTP = re.compile(r"https?://[A-Za-z0-9.-]+(?:[/?#][!-+.-:<-\[\]-{}~-]*)?")
_NEXT_ADDRESS = re.compile(r"[\s,;|]+(?=(?:https?:)?//)|\s*[|;]\s*(?=https?%3a)", re.IGNORECASE)
_NEXT_NAME = re.compile(r"\s*[|;,\n]\s*")
_HOST_FIRST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?/\S", re.IGNORECASE)
_SOURCE = re.compile(
    r"""<img\b(?:[^>"']|"[^"]*"|'[^']*')*?(?<![\w-])src\s*=\s*(?:(["'])(.*?)\1|([^\s>]+))""", re.IGNORECASE | re.DOTALL
)
PICTURE_FILE = re.compile(r"\.(?:jpe?g|png|webp|gif|avif|bmp|tiff?)$", re.IGNORECASE)
"""The end of an address or a path of a picture."""
_KEPT = "%/:=?&#+,;@!$'()*~[]|."
_NAMES = (
    "src",
    "url",
    "uri",
    "href",
    "link",
    "imageUrl",
    "image_url",
    "contentUrl",
    "originalSrc",
    "value",
    "#text",
    "@value",
)
_NESTED = ("image", "node", "preview", "sources", "edges", "nodes", "images", "media", "url", "src")
_WIX = "https://static.wixstatic.com/media/"
_MOST_DEPTH = 6
PLACEHOLDER = re.compile(
    r"placeholder|no[-_ ]?(?:image|photo|picture|pic|img)(?![a-z])|(?:image|photo|picture)[-_ ]?(?:not[-_ ]?available"
    r"|missing|unavailable)|coming[-_ ]?soon|missing[-_ ]?image|default[-_ ]?(?:image|product|img|photo)"
    r"|(?:^|[/_-])(?:blank|spacer|pixel|1x1|dummy|noimg|nopic|nophoto)\.(?:gif|png|jpe?g|webp|svg)"
    r"|//(?:via\.placeholder\.com|placehold\.(?:co|it)|dummyimage\.com|placekitten\.com|picsum\.photos)/",
    re.IGNORECASE,
)
"""Addresses of pictures that shops show where a product has none."""


@dataclass(frozen=True, slots=True)
class PictureRules:
    """How addresses of pictures are read: the section `pictures` of a mapping.

    Attributes:
        base: Prefix of a picture that is not a whole address.
        split: Characters that separate several pictures in one value, beside those that are found without help.
        encode: Whether characters that no address may have are percent-encoded.
        roots: Folders and addresses below which a picture may be read and uploaded.
    """

    base: str = ""
    split: str = ""
    encode: bool = True
    roots: tuple[str, ...] = ()


DEFAULT = PictureRules()
WIX = PictureRules(base=_WIX)


def is_http(address: str) -> bool:
    """Return whether this is an http(s) address, by the rule that the API's table has."""
    return _SURELY_HTTP.fullmatch(address) is not None or rules.is_http_url(address)


def is_surely_http(address: str) -> bool:
    """Return whether this is one plain http(s) address that needs no change. It is the form of nearly all."""
    return _SURELY_HTTP.fullmatch(address) is not None


def addresses_in(value: Any, *, picture: PictureRules = DEFAULT) -> Iterator[str]:
    """Yield the addresses of pictures in a value of a feed, ready to be sent.

    Args:
        value: Text with one or several addresses, a JSON list in a text, a list or an object as JSON APIs write them.
        picture: How they are read.

    Examples:
        >>> list(addresses_in("https://s.example/a.jpg|//s.example/b c.jpg"))
        ['https://s.example/a.jpg', 'https://s.example/b%20c.jpg']
    """
    for text in _texts(value, 0):
        for piece in _pieces(text, picture.split):
            if address := whole_address(piece, picture=picture):
                yield address


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "replace")
    if isinstance(value, str):
        yield from _texts_in_text(value.strip(), depth)
    elif isinstance(value, Mapping) and depth < _MOST_DEPTH:
        named = next((value[name] for name in _NAMES if _is_text(value.get(name))), None)
        if named is None:  # `url_standard`, `srcLarge`
            named = next(
                (one for name, one in value.items() if name.startswith(("url", "src")) and _is_text(one)), None
            )
        inner = [named] if named is not None else [value[name] for name in _NESTED if value.get(name) is not None]
        for one in inner:
            yield from _texts(one, depth + 1)
    elif isinstance(value, list | tuple) and depth < _MOST_DEPTH:
        for one in value:
            yield from _texts(one, depth + 1)


def _texts_in_text(text: str, depth: int) -> Iterator[str]:
    if text[:1] in "[{" and text[-1:] in "]}" and depth < _MOST_DEPTH:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            yield from (part.strip(" '\"") for part in text.strip("[]{}").split(","))
        else:
            yield from _texts(found, depth + 1)
    elif text.startswith("<") and (tags := _SOURCE.findall(text)):  # as page builders write it
        yield from (html.unescape(quoted or bare) for _, quoted, bare in tags)
    elif text and text not in NULLS:
        yield text


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _pieces(text: str, split: str) -> list[str]:
    if split:
        return re.split(f"[{re.escape(split)}]", text)
    if text.startswith(("http:", "https:", "//", "HTTP")):
        return _NEXT_ADDRESS.split(text) if any(character in text for character in " ,;|\n\t") else [text]
    if "//" in text and (found := _NEXT_ADDRESS.split(text)) and len(found) > 1:
        return found
    return _NEXT_NAME.split(text) if "://" not in text else [text]


def whole_address(text: str, *, picture: PictureRules = DEFAULT) -> str:
    """Return an address in the form in which it can be sent; the text unchanged where it is none.

    Examples:
        >>> whole_address("//img.example/a.jpg"), whole_address("https://img.example/i?a=1&amp;b=2")
        ('https://img.example/a.jpg', 'https://img.example/i?a=1&b=2')
        >>> whole_address("/media/a.jpg", picture=PictureRules(base="https://img.example/"))
        'https://img.example/media/a.jpg'
    """
    text = text.strip(" \t\r\n\"'\ufeff\u200b,;|")
    if is_surely_http(text):
        return text
    if text in NULLS:
        return ""
    if "\\/" in text:
        text = text.replace("\\/", "/")
    for _ in range(3):
        if "&" not in text or (plain := _unescaped(text)) == text:
            break
        text = plain
    if text.startswith("//"):
        text = f"https:{text}"
    elif text.startswith("wix:image://"):
        text = _WIX + text.removeprefix("wix:image://v1/").partition("/")[0]
    elif "://" not in text and text and not text.startswith(("data:", "javascript:")):
        if picture.base:
            text = f"{picture.base.rstrip('/')}/{text.lstrip('/')}"
        elif text.lower().startswith("www.") or (
            _HOST_FIRST.match(text) and PICTURE_FILE.search(text.partition("?")[0])
        ):
            text = f"https://{text}"
    if picture.encode and text[:8].lower().startswith(("http://", "https://")):
        text = _encoded(text)
    return text


_ENTITY = re.compile(r"&(?:amp|#38|#x26|quot|#39|#47|#x2f|#58|lt|gt);", re.IGNORECASE)


def _unescaped(text: str) -> str:
    # Only entities that end in a semicolon: in an address `&copy=1` is a parameter.
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def _encoded(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    if not host.isascii() and host.isprintable() and " " not in host:
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return text
    try:
        return f"{scheme.lower()}://{host}{slash}{quote(path, safe=_KEPT)}"
    except UnicodeEncodeError:
        return text


def is_page(address: str) -> bool:
    """Return whether an address is a page of a shop rather than a picture, as far as its form says so.

    Examples:
        >>> is_page("https://shop.example"), is_page("https://shop.example/a.html"), is_page("https://img.example/a")
        (True, True, False)
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    path = parts.path.lower()
    return (path in {"", "/"} and not parts.query) or path.endswith((".html", ".htm", "/index.php"))
