"""Where ``drsow annotate`` writes to: a folder, a file, or the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.cache import cache_folder, storage_errors, unfinished
from drsow_plugin.config.parse import parse_flag

if TYPE_CHECKING:
    from drsow_plugin.annotate.outputs import Output
    from drsow_plugin.annotate.report import Report


def open_target(target: str, *, push: bool, options: Mapping[str, Any]) -> Output | HubOutput:
    """Find out where to write to, and check it before any work is done.

    Args:
        target: A folder, a file, or a Hub id.
        push: Whether it is a Hub id.
        options: ``public``, ``license``, ``language`` and ``branch``, for the Hub.

    Raises:
        ConfigError: It cannot be written, or something else is there.
        HubError: The Hub would not take it.
    """
    if not push:
        from drsow_plugin.annotate.outputs import open_output

        return open_output(target)
    from drsow_plugin.publishing.publish import check_target

    private = not parse_flag("public", options.get("public", False))
    kept = {name: options.get(name) for name in ("license", "language")}
    check_target(target, private=private)
    return HubOutput(target, {"private": private, "revision": options.get("branch"), **kept})


@dataclass(frozen=True)
class HubOutput:
    """A data set on the Hub, which takes labelled rows as an ``Output`` on disk does."""

    name: str
    options: dict[str, Any]

    def check(self, data: Any) -> None:
        """Take any rows."""

    @contextmanager
    def reserved(self, source: str) -> Iterator[Path]:
        """Let others in: the Hub itself sees to it."""
        folder = cache_folder()
        with ExitStack() as stack:
            with storage_errors(f"{folder} cannot be written", "Name another with DRSOW_CACHE."):
                made = stack.enter_context(unfinished(folder))
            yield made

    def write(self, data: Any, report: Report, folder: Path) -> str:
        """Publish both, and return the address."""
        from drsow_plugin.publishing.publish import publish

        return publish(data, self.name, report, **self.options)
