"""lm-eval's own command: mistakes told before the work, errors in one line, results named."""

from __future__ import annotations

import difflib
import fnmatch
import re
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from drsow_plugin.errors import ConfigError, DrSoWError, unknown_name
from drsow_plugin.harness import tasks_path
from drsow_plugin.printable import printable

_UNKNOWN_TASKS = (r"Tasks not found: (.+)", r"Spec '(.+)' is not a registered .*")
"""How lm-eval 0.4.13, and a later one, tell of names that they do not know."""


def in_plain_words(execute: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """Return the command ``lm_eval run`` that ends with one line where an error is ours."""

    def run(arguments: Namespace) -> None:
        try:
            _check(arguments)
            execute(arguments)
        except DrSoWError as error:
            sys.exit(f"Error: {printable(str(error), lines=True)}")

    return run


@contextmanager
def theirs_in_plain_words() -> Iterator[None]:
    """Turn the mistakes that lm-eval itself tells with a traceback into errors of ours.

    Raises:
        ConfigError: lm-eval refused its arguments. Whatever else it raises stays as it is.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"lm-eval: {_one_line(error)}") from error
    except (ValueError, KeyError) as error:
        frames = [
            frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        if frames[-1].partition(".")[0] != "lm_eval":
            raise
        message = _one_line(error)
        for pattern in _UNKNOWN_TASKS:
            if unknown := re.fullmatch(pattern, message):
                raise ConfigError(_unknown_tasks(unknown[1].split(", "))) from error
        raise ConfigError(f"lm-eval: {message}") from error


def run(arguments: Sequence[str]) -> None:
    """Run lm-eval's command; without arguments it shows its help.

    Raises:
        ConfigError: lm-eval refused its arguments.
    """
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", *(arguments or ("--help",))]
    with theirs_in_plain_words():
        cli_evaluate()


def pair_name(model_args: str | Mapping[str, Any] | None) -> str | None:
    """Return ``STRONG_over_WEAK`` for the arguments of a pair, else ``None``."""
    if isinstance(model_args, str):
        parts = (part.partition("=") for part in model_args.split(","))
        model_args = {name.strip(): value for name, _, value in parts}
    if not isinstance(model_args, Mapping) or "weak" not in model_args:
        return None
    strong = model_args.get("strong") or model_args.get("pretrained") or "?"
    return f"{PurePath(str(strong)).name}_over_{PurePath(str(model_args['weak'])).name}"


def _one_line(error: Exception) -> str:
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(message.split()) or type(error).__name__


def _unknown_tasks(names: list[str]) -> str:
    from lm_eval.tasks import TaskManager

    valid = TaskManager().all_tasks
    near = {name: difflib.get_close_matches(name, valid, n=3) for name in names}
    listed = [
        f"{name!r} (did you mean {' or '.join(map(repr, matches))}?)" if matches else repr(name)
        for name, matches in near.items()
    ]
    return f"Unknown task {', '.join(listed)}. 'drsow eval ls tasks' lists all of them."


def _check(arguments: Namespace) -> None:
    tasks = getattr(arguments, "tasks", None) or []
    metadata = getattr(arguments, "metadata", None)
    if isinstance(tasks, list) and isinstance(metadata, dict):
        _check_metadata([name for task in tasks for name in task.split(",")], metadata)
    if getattr(arguments, "model", None) in ("drsow", "reward"):
        for option in ("output_path", "use_cache"):
            _check_writable(option, getattr(arguments, option, None))


def _check_metadata(tasks: list[str], names: Collection[str]) -> None:
    """Refuse names that say nothing to any of the tasks, if all of them are ours."""
    own = [file.stem for file in Path(tasks_path()).glob("*.yaml")]
    matches = [fnmatch.filter(own, task) for task in tasks]
    if not all(matches):
        return  # what others read is not known here
    from drsow_plugin.harness.benchmarks import metadata_names

    valid = {n for match in matches for task in match for n in metadata_names(task)}
    for name in names:
        if not valid:
            raise ConfigError(
                f"--metadata {name}=… says nothing to {', '.join(tasks)}, which come with their "
                "data. Leave it out; data of yours is for --tasks preference."
            )
        if name not in valid:
            raise ConfigError(unknown_name("name in --metadata", name, valid))


def _check_writable(option: str, place: str | None) -> None:
    """Refuse, before the work, a place to which nothing could be written after it."""
    if not place:
        return
    path = Path(place).absolute()
    is_file = option == "use_cache" or path.suffix == ".json"
    folder = path.parent if is_file else path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"--{option} {place}: nothing can be written into {folder}: {error.strerror}. Give "
            "another place."
        ) from error
