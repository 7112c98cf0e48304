"""Steps: commands, each with an output whose name follows from all it depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from drsow_plugin.errors import ConfigError
from drsow_plugin.hashing import file_sha256, text_sha256
from drsow_plugin.pipeline.spelling import flags

OUTPUT = "OUTPUT"
"""Stands, in a command, for where it writes."""
_KEY = 10  # hexadecimal digits of a step's key


@dataclass(frozen=True)
class Step:
    """A command of a pipeline.

    Attributes:
        name: Says what it does.
        command: The arguments of ``drsow``.
        output: What it writes: the name of the step with its key, below the pipeline's folder.
        stops: What it means where the command ends with another status than 0.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    stops: str = ""


@dataclass(frozen=True)
class Measured:
    """What an arm, trained with a seed, is measured by.

    Attributes:
        arm: What it was trained on.
        seed: Of the training; 0 for the start.
        file: What ``drsow evaluate`` wrote.
    """

    arm: str
    seed: int
    file: Path


@dataclass
class Plan:
    """The steps of a recipe, in order.

    Attributes:
        folder: Where all of them write.
        steps: The steps.
        measured: Which of them measure what.
    """

    folder: Path
    steps: list[Step] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)

    def add(
        self,
        name: str,
        command: Sequence[str | Path],
        options: Mapping[str, Any],
        ending: str = "",
        stops: str = "",
        into: Sequence[str] = (OUTPUT,),
    ) -> Path:
        """Add a step, and return where it writes.

        The key is a hash of the command, of the files of others that it reads, and of the version
        of this package. What an earlier step wrote has that step's key in its name.
        """
        arguments = [*map(str, command)]
        spelled = flags(options)
        read = [["text", arguments[0]]]  # whatever has this name here
        read += [self._content(argument) for argument in (*arguments[1:], *spelled)]
        read += [self._module(name) for name in _plugins(options)]
        version = metadata.version("drsow-plugin")
        key = text_sha256(json.dumps([name, arguments[0], read, ending, version]))[:_KEY]
        output = self.folder / f"{name.replace(' ', '-')}-{key}{ending}"
        place = (str(output) if part == OUTPUT else part for part in into)
        whole = (*arguments, *place, *spelled)
        self.steps.append(Step(name, whole, output, stops))
        return output

    def _content(self, argument: str) -> list[str]:
        """Return what an argument stands for: the output of a step, or the contents of files."""
        path = Path(argument).expanduser()
        for step in self.steps:
            if path.is_relative_to(step.output):
                return ["step", str(path.relative_to(self.folder))]
        with suppress(OSError):  # such as of a name that is too long to be a file's
            if path.is_file():
                return ["file", file_sha256(path)]
            if path.is_dir():
                return ["folder", *self._files(path, "*")]
        parts = argument.split("+")
        if len(parts) > 1 and any(Path(part).expanduser().is_file() for part in parts):
            return ["list", *(text for part in parts for text in self._content(part))]
        return ["text", argument]

    def _module(self, name: str) -> list[str]:
        """Return the contents of a plugin that is named as a module; empty where there is none."""
        spec = find_spec(name.partition(".")[0])
        if spec is None or spec.origin is None:
            return []
        if spec.submodule_search_locations is None:
            return self._content(spec.origin)
        return ["module", *self._files(Path(spec.origin).parent, "*.py")]

    def _files(self, folder: Path, names: str) -> list[str]:
        if self.folder.absolute().is_relative_to(folder.absolute()):
            raise ConfigError(
                f"{folder} is read, and {self.folder} in it is written to. Write somewhere else, "
                "with --out."
            )
        files = sorted(file for file in folder.rglob(names) if file.is_file())
        return [f"{file.relative_to(folder)} {file_sha256(file)}" for file in files]


def _plugins(options: Mapping[str, Any]) -> list[str]:
    """Return the plugins that are named as modules, not as files."""
    given = options.get("plugin") or ()
    names = given.split("+") if isinstance(given, str) else [str(name) for name in given]
    return [name for name in names if name.replace(".", "_").isidentifier()]
