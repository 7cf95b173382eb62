# SPDX-License-Identifier: Apache-2.0
"""Make text from outside safe for the place where it is shown.

Product names, ids and addresses come from feeds; messages and ids come from the service. Each place has characters that
do more than show themselves: a terminal obeys escape sequences, a log takes a newline for a new entry, Markdown takes
brackets for links, a spreadsheet takes `=` for a formula, XML has no form for a control character at all.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from typing import Any

_SPACE = re.compile(r"\s+")
# A database's address may hold any character in its password. A web address may have an `@` behind its host.
_SECRET_LOGIN = re.compile(
    r"(?P<before>\bhttps?://[^/\s:@?#]*):[^\s/?#]*@|(?P<other>(?<![\w+.-])(?!https?:)[A-Za-z][\w+.-]*+://[^/\s:@]*):\S*@",
    re.IGNORECASE,
)
_SECRET_PARAMETER = re.compile(
    r"(?P<before>[?&;\s](?:[\w.-]*(?:password|passwd|secret|token|signature|credential|api[-_]?key)|sig)=)[^&;\s'\"]+",
    re.IGNORECASE,
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+.!-])|([&<>|~@])")
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r")
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HIDDEN_IN_JSON = re.compile("[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_LINK = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]+")


def one_line(text: object, *, most: int | None = None) -> str:
    r"""Return text on one line, without characters that a terminal obeys or that reorder what is shown.

    Args:
        text: Anything; it is converted by `str`.
        most: Characters at most; a longer text is shortened and ends in `…`.

    Examples:
        >>> one_line("Lamp\x1b[2J\t\nred")
        'Lamp[2J red'
    """
    whole = str(text)
    if not (whole.isascii() and whole.isprintable()):
        whole = "".join(char for char in whole if char.isspace() or unicodedata.category(char)[0] != "C")
    whole = _SPACE.sub(" ", whole).strip()
    return whole if most is None or len(whole) <= most else whole[: most - 1] + "…"


def printable(text: str) -> str:
    r"""Return text that a terminal shows and never obeys; its lines and columns stay.

    Examples:
        >>> printable("a  b\x1b[2J\n")
        'a  b[2J\n'
    """
    return "".join(char for char in text if char in "\t\n" or unicodedata.category(char)[0] != "C")


def without_passwords(text: str) -> str:
    """Return text in which no address shows a password, neither before its host nor as a parameter.

    Examples:
        >>> without_passwords("postgresql://me:secret@db/shop?sslpassword=secret")
        'postgresql://me:***@db/shop?sslpassword=***'
    """
    text = _SECRET_LOGIN.sub(lambda found: f"{found['before'] or found['other']}:***@", text)
    return _SECRET_PARAMETER.sub(r"\g<before>***", text)


def escape_markdown(text: object) -> str:
    r"""Return text that Markdown shows unchanged: no formatting, links, HTML or mentions.

    Examples:
        >>> escape_markdown("[Lamp](x) <b>")
        '\\[Lamp\\]\\(x\\) &#60;b&#62;'
    """
    return _MARKDOWN.sub(lambda found: f"\\{found[1]}" if found[1] else f"&#{ord(found[2])};", one_line(text))


def markdown_link(url: str | None) -> str | None:
    """Return a URL for the target of a Markdown link or image; None where it is no plain http(s) address.

    Examples:
        >>> markdown_link("https://u.example/k.png"), markdown_link("javascript:alert(1)")
        ('https://u.example/k.png', None)
    """
    return url if url is not None and _LINK.fullmatch(url) else None


def spreadsheet_cell(text: str) -> str:
    """Return text that a spreadsheet takes for text and never for a formula.

    Examples:
        >>> spreadsheet_cell("=1+1"), spreadsheet_cell("LL-1")
        ("'=1+1", 'LL-1')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def is_xml_text(text: str) -> bool:
    r"""Return whether XML 1.0 can hold a text at all, escaped or not.

    Examples:
        >>> is_xml_text("Lamp & shade"), is_xml_text("Lamp\x0b")
        (True, False)
    """
    return _NO_XML.search(text) is None


def json_text(value: Any, **options: Any) -> str:
    r"""Return JSON in which every character that a terminal could obey is escaped; it reads as the same value.

    Args:
        value: JSON types.
        **options: Of `json.dumps`.

    Examples:
        >>> json_text("Käse\x9b2J")
        '"Käse\\u009b2J"'
    """
    written = json.dumps(value, ensure_ascii=False, **options)
    return _HIDDEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


class _OneLine(logging.Filter):
    """Keeps an entry of the log on one line, for any values."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(value) for value in record.args)
        return True


def _shown(value: object) -> object:
    return value if isinstance(value, int | float | None) else one_line(without_passwords(str(value)))


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose entries stay on one line and show no password of an address.

    Args:
        name: As for `logging.getLogger`.
    """
    logger = logging.getLogger(name)
    if not any(isinstance(known, _OneLine) for known in logger.filters):
        logger.addFilter(_OneLine())
    return logger
