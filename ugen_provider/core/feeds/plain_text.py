# SPDX-License-Identifier: Apache-2.0
"""Text for people out of the text of shops: names and selling points without markup, entities and leftovers.

Pure. The default mapping carries the version of these rules, because another text is another request.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

NULLS = frozenset(
    {
        *(r"\N", "NULL", "null", "Null", "(null)", "None", "none", "NONE", "nan", "NaN", "NAN", "<NA>", "NaT"),
        *("nil", "N/A", "n/a", "#N/A", "undefined", "no_selection"),
    }
)
"""Words with which databases, data frames and spreadsheets write that a value is missing."""

MOST_POINTS = 5
"""Selling points that are sent at most; a script of a few segments has no time for more."""
_MOST_SENTENCES = 3
_MOST_LETTERS = 150
_ROUNDS = 4  # texts that were escaped more often than this are left

_SPECIAL = re.compile(
    "[<&\\[\\\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe]"
)
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe]"
)
_WRITTEN_BREAK = re.compile(r"\\r\\n|\\n|\\r")
_ATTRIBUTES = r"""(?:\s+[\w-]+\s*=\s*(?:"[^"\]]*"|'[^'\]]*'|[^\s\]"']+))"""
_SHORTCODE = re.compile(
    # A closing tag; a name with an underscore or a hyphen; a name with attributes; WordPress's own names.
    rf"\[/[a-z][\w-]*\]|\[[a-z]+[_-][\w-]*(?:\s[^\]]*)?\]|\[[a-z][\w-]*{_ATTRIBUTES}+\s*/?\]"
    r"|\[(?:gallery|caption|embed|audio|video|playlist|products?|row|column|button|section|tabs?|toc|divider|more)\s*/?\]",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"\[/([a-z][\w-]*)\]", re.IGNORECASE)
_BREAK = "\n"
_BLOCKS = frozenset(
    {
        *("p", "li", "ul", "ol", "div", "br", "tr", "td", "th", "dt", "dd", "dl", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("table", "section", "article", "header", "footer", "blockquote", "hr", "pre", "figure", "option"),
    }
)
_HIDDEN = frozenset({"script", "style", "xml", "head", "title", "template", "noscript", "svg", "iframe"})
_VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "wbr", "source", "col", "area", "base", "embed"})


class _Text(HTMLParser):
    """Collects the text of HTML, with a line break for each block and a mark for each list entry."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "li":
            self.parts.append(f"{_BREAK}{_BULLET} ")
        else:
            self.parts.append(_BREAK if tag in _BLOCKS else "" if tag in _INLINE else " ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.parts.append(_BREAK if tag in _BLOCKS else " ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag not in _VOID:
            self.parts.append(_BREAK if tag in _BLOCKS else "" if tag in _INLINE else " ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data.replace("\r\n", "\n"))


_BULLET = "•"
_INLINE = frozenset(
    {"b", "strong", "i", "em", "u", "span", "a", "font", "small", "sup", "sub", "mark", "abbr", "s", "o:p"}
)


def without_markup(text: str) -> str:
    """Return text without tags, entities, comments, shortcodes and invisible characters; line breaks stay.

    Examples:
        >>> without_markup("Caf&amp;eacute; <b>crème</b>")
        'Café crème'
    """
    if _SPECIAL.search(text) is None:
        return text
    for _ in range(_ROUNDS):
        before = text
        if "&" in text:
            text = html.unescape(text)
        if "<" in text:
            text = _without_tags(text)
        if text == before:
            break
    if "[" in text:
        closed = {name.lower() for name in _CLOSED.findall(text)}
        text = _SHORTCODE.sub(" ", text)
        for name in closed:
            text = re.sub(rf"\[{re.escape(name)}(?:\s[^\]]*)?\]", " ", text, flags=re.IGNORECASE)
    if "\\" in text:
        text = _WRITTEN_BREAK.sub(_BREAK, text).replace("\\t", " ").replace('\\"', '"').replace("\\'", "'")
    text = text.replace("\x0b", _BREAK).replace("\x85", _BREAK).replace("\u2028", _BREAK).replace("\u2029", _BREAK)
    return _INVISIBLE.sub("", text)


def _without_tags(text: str) -> str:
    parser = _Text()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError:  # the parser's own, on a declaration that never ends
        return text.partition("<")[0]
    return "".join(parser.parts)


def one_line(text: str) -> str:
    """Return text with single spaces."""
    return " ".join(text.split())


def cleaned(text: str) -> str:
    """Return a name or a phrase as a person would write it: one line, no markup; empty for a null word.

    Examples:
        >>> cleaned("<b>Warm</b> light &amp; oak"), cleaned("NULL")
        ('Warm light & oak', '')
    """
    if _SPECIAL.search(text) is None:
        text = " ".join(text.split())
        return "" if text in NULLS else text
    text = " ".join(without_markup(text).split())
    return "" if text in NULLS else text.removeprefix(f"{_BULLET} ")


plain_text = cleaned

_STRONG = "•●▪■◦‣⁃►▶✓✔✅☑➤➢❖✦★☆🔹🔸♦◆◾▸➔→✨・"  # noqa: RUF001
_BULLETED = re.compile(rf"(?:^|(?<=\s))[{_STRONG}]\ufe0f?\s*")
_LINE_MARK = re.compile(rf"\s*(?:[{_STRONG}*+·–—-]\ufe0f?\s*|(?:\d{{1,2}}|[a-z])[.)]\s+)(?=\S)", re.IGNORECASE)  # noqa: RUF001
_END = re.compile(r"""[.!?…؟।]+["'”’»)\]]*\s+|[。！？｡]+["'”’」』）]*\s*""")  # noqa: RUF001
_ABBREVIATIONS = frozenset(
    {
        *(
            "approx",
            "incl",
            "excl",
            "ca",
            "etc",
            "vs",
            "max",
            "min",
            "nr",
            "no",
            "nos",
            "art",
            "abb",
            "fig",
            "vol",
            "pp",
        ),
        *(
            "dr",
            "mr",
            "mrs",
            "ms",
            "st",
            "jr",
            "sr",
            "prof",
            "inc",
            "ltd",
            "co",
            "corp",
            "dept",
            "est",
            "ft",
            "oz",
            "lb",
        ),
        *(
            "inkl",
            "exkl",
            "bzw",
            "evtl",
            "ggf",
            "usw",
            "zzgl",
            "mind",
            "geb",
            "str",
            "tel",
            "ung",
            "ungef",
            "stk",
            "gr",
        ),
        *("env", "réf", "ref", "mm", "mme", "aprox", "máx", "mín", "núm", "circa", "ecc", "es", "bijv", "incl", "excl"),
        *(
            "e.g",
            "i.e",
            "z.b",
            "d.h",
            "u.a",
            "p.ej",
            "a.o",
            "o.ä",
            "s.o",
            "u.s",
            "u.k",
            "e.u",
            "p.m",
            "a.m",
            "qty",
            "pcs",
        ),
    }
)
_BEFORE_NUMBER = frozenset({"no", "nos", "nr", "fig", "vol", "art", "núm", "réf", "ref", "pp", "abb", "max", "min"})
_ENDS_TOO = frozenset(
    {"etc", "usw", "ecc", "inc", "ltd", "co", "corp", "pcs", "p.m", "a.m", "mm", "max", "min", "no", "es"}
)
_LAST_WORD = re.compile(r"[\w.]+$")
_CLAUSE = re.compile(r"[,;:，；、]\s*|\s[–—-]\s")  # noqa: RUF001


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of one line; a full stop after an abbreviation, or before a small letter, ends none.

    Examples:
        >>> list(sentences("Approx. 30 cm high, incl. bulb. Fits desks e.g. in an office. No. 1 in its class."))
        ['Approx. 30 cm high, incl. bulb.', 'Fits desks e.g. in an office.', 'No. 1 in its class.']
        >>> list(sentences("明るさです。木です。"))
        ['明るさです。', '木です。']
    """
    begin = 0
    for found in _END.finditer(text):
        if text[found.start()] == "." and _continues(text, begin, found):
            continue
        if sentence := text[begin : found.end()].strip():
            yield sentence
        begin = found.end()
    if rest := text[begin:].strip():
        yield rest


def _continues(text: str, begin: int, end: re.Match[str]) -> bool:
    after = text[end.end() : end.end() + 1]
    if after.islower():
        return True
    found = _LAST_WORD.search(text, begin, end.start())
    word = found[0].lower() if found else ""
    if len(word) == 1 and word.isalpha():
        # An initial, or a part of an abbreviation such as `z. B.`; a unit after a number ends a sentence.
        return found is not None and not (found[0].islower() and text[: found.start()].rstrip()[-1:].isdigit())
    if word not in _ABBREVIATIONS:
        return False
    if word in _BEFORE_NUMBER:
        return after.isdigit()
    return word not in _ENDS_TOO or not after.isupper()


_PLAIN_POINT = re.compile(r"[A-Za-z][^<&\[|;\\\"\n\r\t\x00-\x1f\x7f-\x9f\u00ad\u2000-\u2bff\u3000-\U0010ffff]{4,149}")


def is_plain_point(text: str) -> bool:
    """Return whether a text is one point that needs no change except of its spaces. It is the form of most."""
    return _PLAIN_POINT.fullmatch(text) is not None and text[1:3] not in {". ", ") "}


def points_of_phrase(text: str) -> list[str]:
    """Return the points of a highlight: one, or one for each entry of a list in it.

    Examples:
        >>> points_of_phrase('["Bright", "Small"]'), points_of_phrase("Bright | Small")
        (['Bright', 'Small'], ['Bright', 'Small'])
    """
    entries = (entry for line in _lines(without_markup(text)) for entry in _entries(line))
    return [point for entry in entries if (point := _shortened(_unmarked(entry)))]


def _entries(line: str) -> Iterable[str]:
    """Return the entries of a list in one line: a JSON list, or values that bars, semicolons or CJK stops separate."""
    bare = line.strip()
    if bare[:1] == "[" and bare[-1:] == "]":
        try:
            found = json.loads(bare)
        except (ValueError, RecursionError):
            found = [piece.strip(" '\"") for piece in bare[1:-1].split(",")]
        return [one for one in found if isinstance(one, str)]
    for mark in ("|", ";"):
        if mark in line:
            return line.split(mark)
    return sentences(bare) if "。" in line else (line,)


def points_of_prose(text: str) -> list[str]:
    """Return the first sentences of a description, or the first entries of the list in it.

    Examples:
        >>> points_of_prose("<p>Soft</p><ul><li>Organic cotton</li><li>Made in Porto</li></ul>")
        ['Soft', 'Organic cotton', 'Made in Porto']
    """
    lines = list(_lines(without_markup(text)))
    listed = sum(1 for line in lines if _LINE_MARK.match(line)) > 1
    points: list[str] = []
    for line in lines:
        if _LINE_MARK.match(line) and (listed or line.lstrip()[0] in _STRONG):
            found: Iterator[str] = iter((_unmarked(line),))
        else:
            found = sentences(" ".join(line.split()))
        for sentence in found:
            if sentence[-1] in ":：" or sentence in NULLS:  # noqa: RUF001  a heading
                continue
            if (point := _shortened(sentence)) and point not in points:
                points.append(point)
            if len(points) >= (MOST_POINTS if listed else _MOST_SENTENCES):
                return points
    return points


def _lines(text: str) -> Iterator[str]:
    for line in text.split(_BREAK):
        if len(_BULLETED.findall(line)) > 1 or (line.count(" · ") > 1):
            pieces = _BULLETED.split(line) if _BULLETED.search(line) else line.split(" · ")
            for number, piece in enumerate(pieces):
                if piece.strip():
                    yield f"{_BULLET} {piece.strip()}" if number or line.lstrip()[0] in _STRONG else piece.strip()
        elif line.strip():
            yield line


def _unmarked(line: str) -> str:
    found = _LINE_MARK.match(line)
    text = " ".join((line[found.end() :] if found else line).split())
    return "" if text in NULLS else text


def _shortened(point: str) -> str:
    """Return a point of bounded length, cut at a clause where it has one, else between two words."""
    if len(point) <= _MOST_LETTERS:
        return point
    cut = 0
    for found in _CLAUSE.finditer(point, 0, _MOST_LETTERS):
        cut = found.start()
    if cut < 20:
        cut = point.rfind(" ", 0, _MOST_LETTERS)
    return point[:cut].rstrip(" ,;:–—-") if cut > 0 else ""  # noqa: RUF001
