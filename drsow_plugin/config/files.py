"""Options from a file, which others may have written: bounded, and what of it would run code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drsow_plugin.bounded_yaml import load_yaml
from drsow_plugin.errors import ConfigError
from drsow_plugin.records import SIDES

_NAMED = (*SIDES, "policy", "start", "judge")
_OWNERS = {
    "": SIDES,
    **{f"{model}_": (model,) for model in _NAMED},
    "judge_model_": ("judge",),
    "router_": ("router_model",),
}
_OF_MODEL = ("trust_remote_code", "allow_pickle", "attn_implementation")
_ALLOWING = {
    "trust_remote_code": "code from the repository",
    "allow_pickle": "pickled weights",
}
_OFF = {"", "0", "false", "none"}


def read_options(file: str, said: str) -> dict[str, Any]:
    """Read options from a YAML or JSON file.

    Args:
        file: The file.
        said: What it is called in an error, such as ``--config FILE``.

    Raises:
        ConfigError: It is not there, or not a mapping of names to values.
    """
    try:
        loaded = load_yaml(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{said} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping):
        held = "nothing" if loaded is None else f"a {type(loaded).__name__}"
        raise ConfigError(
            f"{said} holds {held}; needed are names and values, such as 'strong: org/model'."
        )
    options = {str(name).replace("-", "_"): value for name, value in loaded.items()}
    if len(options) < len(loaded):
        twice = [n for n in loaded if "-" in str(n) and str(n).replace("-", "_") in loaded]
        raise ConfigError(f"{said} gives {', '.join(map(str, twice))} twice.")
    return options


def code_in(options: Mapping[str, Any], merged: Mapping[str, Any]) -> Iterator[str]:
    """Say of each option of a file that runs code what it would run.

    Args:
        options: Those of the file.
        merged: These and all others.
    """
    if plugins := options.get("plugin"):
        listed = plugins if isinstance(plugins, (list, tuple)) else [plugins]
        yield f"the plugin {', '.join(map(str, listed))}"
    models = options.get("models")  # of a study
    for named, model in models.items() if isinstance(models, Mapping) else ():
        if isinstance(model, Mapping):
            own = code_in({n: v for n, v in model.items() if n in _OF_MODEL}, {})
            yield from (f"{code} for the model {named}" for code in own)
    for owner, sources in _OWNERS.items():
        whose = " and ".join(str(merged.get(source, source)) for source in sources)
        for option, what in _ALLOWING.items():
            name = f"{owner}{option}"
            if str(options.get(name, "")).lower() not in _OFF:
                yield f"{what} of {whose} ({name})"
        name = f"{owner}attn_implementation"
        if "/" in str(options.get(name, "")):
            yield f"the kernel {options[name]} from the Hub ({name})"
