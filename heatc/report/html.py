"""HTML as text that cannot be misread: whatever is no `Html` is escaped where it is put in."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_VOID = {"img", "input", "meta", "br", "hr"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: str) -> Html:
    """A text as HTML, in an element and in an attribute alike."""
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def join(parts: Iterable[str | None], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(between.join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: str | None, **attributes: str | int | bool | None) -> Html:
    """
    An element.

    `class_` is the attribute `class`, and `data_x` is `data-x`. An attribute of None or False is left
    out, one of True has no value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(str(value))}"')
    opened = f"<{' '.join(words)}>"
    return Html(opened if name in _VOID else f"{opened}{join(children)}</{name}>")


def badge(kind: str) -> Html:
    """Where figures come from: modelled, measured, functional, counted or compared."""
    return tag("span", kind, class_=f"badge {kind}")


def details(summary: str, *children: str | None, is_open: bool = False) -> Html:
    """A part that a reader opens."""
    return tag("details", tag("summary", summary), *children, open=is_open)


def definitions(pairs: Iterable[tuple[str, str]]) -> Html:
    """Names with what they are."""
    rows = (tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs)
    return tag("dl", *rows)


# --- Tables -----------------------------------------------------------------------------------


class Cell:
    """
    A cell of a table.

    `key` is what it is sorted by, a number or a text; the text itself where it is None. `classes`
    are those of CSS.
    """

    __slots__ = ("classes", "key", "text")

    def __init__(self, text: str, key: float | str | None = None, classes: str = ""):
        self.text = text
        self.key = key
        self.classes = classes


class Title(NamedTuple):
    """The title of a column, with the unit of its figures."""

    text: str
    unit: str = ""


def table(
    head: Sequence[Title | str],
    rows: Iterable[Sequence[Cell | str]],
    *,
    caption: str,
    is_sortable: bool = False,
    id_: str | None = None,
) -> Html:
    """A table in a frame that scrolls on its own; the first column names the rows."""
    known = [title if isinstance(title, Title) else Title(title) for title in head]
    titles = [_title(title, number, is_sortable) for number, title in enumerate(known)]
    body = [_row(row) for row in rows]
    made = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *titles)),
        tag("tbody", *body),
        class_="sortable" if is_sortable else None,
        id=id_,
    )
    return tag("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _title(title: Title, number: int, is_sortable: bool) -> Html:
    text = title.text
    if is_sortable:
        text = tag("button", text, type="button", data_column=number)
    unit = tag("span", title.unit, class_="unit") if title.unit else None
    return tag("th", text, unit, scope="col")


def _row(row: Sequence[Cell | str]) -> Html:
    cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
    made: list[str] = []
    for number, cell in enumerate(cells):
        key = None if cell.key is None else str(cell.key)
        name, scope = ("th", "row") if number == 0 else ("td", None)
        made.append(tag(name, cell.text, data_key=key, scope=scope, class_=cell.classes or None))
    return tag("tr", *made)
