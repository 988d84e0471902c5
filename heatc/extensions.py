"""
What heatc has by name, its own and what other packages bring.

A package brings a thing by an entry point: a name and an object of its own in one of the groups
`heatc.rules`, `heatc.formats`, `heatc.hardware`, `heatc.targets` and `heatc.semantics`. Names are known without an
import; an object is imported when it is asked for by its name. docs/extending/ has a page a group.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from heatc.errors import HeatcError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

OWN = "heatc"
"""Where a thing comes from that no other package brings."""


class Row(NamedTuple):
    """One thing of a list: its name, what it is, and where it comes from."""

    name: str
    summary: str
    origin: str


def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, heatc's own left out."""
    from importlib.metadata import entry_points  # here alone: 40 ms of every command's start

    found = [entry for entry in entry_points(group=group) if package_of(entry) != OWN]
    return tuple(sorted(found, key=lambda entry: (entry.name, origin_of(entry))))


def package_of(entry: EntryPoint) -> str:
    """The name of the package that an entry point belongs to."""
    return "" if entry.dist is None else entry.dist.name


def origin_of(entry: EntryPoint) -> str:
    """`heatc-nearby 0.1`: the package of an entry point and its version."""
    return "an unnamed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def load(entry: EntryPoint, what: str) -> object:
    """The object of an entry point; `HeatcError` where its package is broken."""
    try:
        return entry.load()
    except Exception as error:
        raise broken(entry, what, f"cannot be loaded: {type(error).__name__}: {error}") from error


def broken(entry: EntryPoint, what: str, problem: str) -> HeatcError:
    """The error about an entry point that gives no `what`."""
    return HeatcError(
        f"{what} {entry.name!r} of the package {origin_of(entry)} {problem}",
        place=f"entry point {entry.group}: {entry.name} = {entry.value}",
        notes=[f"repair the package {package_of(entry) or 'that brings it'}, or uninstall it"],
    )


def twice(what: str, name: str, origins: list[str]) -> HeatcError:
    """The error about one name that several packages use."""
    return HeatcError(
        f"{what} {name!r} is brought by {' and by '.join(origins)}",
        notes=["uninstall all of these packages but one"],
    )


@dataclass
class Registry(Generic[T]):
    """
    The things of one sort by name.

    Attributes:
        group: the group of entry points of other packages.
        what: what messages call one of the things.
        kind: the class that its object has.
        own: how each thing of heatc itself is made, by name.
        summarised: the one line that a list says of a thing.
        is_named: whether an object has its own name in `name`, which must be the entry point's.
        problem: what is wrong with a thing of another package, or nothing.
    """

    group: str
    what: str
    kind: type[T]
    own: Mapping[str, Callable[[], T]]
    summarised: Callable[[T], str]
    is_named: bool = True
    problem: Callable[[T], str] = lambda thing: ""

    def __post_init__(self) -> None:
        self._found: dict[str, T] = {}

    @cached_property
    def foreign(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        """The entry points of other packages by name."""
        found: dict[str, tuple[EntryPoint, ...]] = {}
        for entry in installed(self.group):
            found[entry.name] = (*found.get(entry.name, ()), entry)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """heatc's own in their order, then those of other packages."""
        return (*self.own, *(name for name in self.foreign if name not in self.own))

    def find(self, name: str) -> T | None:
        """
        The thing of a name, None where there is none.

        Raises `HeatcError` for a name that several packages use, and for a package that is broken.
        """
        if name not in self._found:
            if name not in self.own and name not in self.foreign:
                return None
            self._found[name] = self._made(name)
        return self._found[name]

    def origins(self, name: str) -> list[str]:
        """The packages that bring a name."""
        own = [OWN] if name in self.own else []
        return [*own, *map(origin_of, self.foreign.get(name, ()))]

    def rows(self) -> list[Row]:
        """Every thing; of one that cannot be had, why."""
        return [
            Row(name, self._summary(name), " and ".join(self.origins(name))) for name in self.names
        ]

    @contextmanager
    def blamed(self, name: str) -> Generator[None]:
        """What runs in it is the code of a thing: where another package fails, it is named."""
        try:
            yield
        except Exception as error:
            from xdsl.utils.exceptions import DiagnosticException  # most commands need no xDSL

            if name in self.own or isinstance(error, HeatcError | DiagnosticException):
                raise
            text = f"fails: {type(error).__name__}: {error}"
            raise broken(self.foreign[name][0], self.what, text) from error

    def _made(self, name: str) -> T:
        origins = self.origins(name)
        if len(origins) > 1:
            raise twice(self.what, name, origins)
        return self.own[name]() if name in self.own else self._loaded(self.foreign[name][0])

    def _loaded(self, entry: EntryPoint) -> T:
        found = load(entry, self.what)
        if not isinstance(found, self.kind):
            raise broken(entry, self.what, f"is no {self.kind.__name__}, but {found!r:.80}")
        own_name = getattr(found, "name", entry.name) if self.is_named else entry.name
        if own_name != entry.name:
            raise broken(entry, self.what, f"calls itself {own_name!r}")
        if problem := self.problem(found):
            raise broken(entry, self.what, problem)
        return found

    def _summary(self, name: str) -> str:
        try:
            found = self.find(name)
        except HeatcError as error:
            return f"error: {error.message}"
        assert found is not None
        return self.summarised(found)
