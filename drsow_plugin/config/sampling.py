"""How a policy's responses are sampled, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from drsow_plugin.config.options import options_of, parse_options
from drsow_plugin.config.parse import parse_probability, parse_whole
from drsow_plugin.errors import ConfigError
from drsow_plugin.option import Values, documented, option


def _temperature(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 100:
        raise ConfigError(f"{name} is a number from 0 to 100, got {value!r}.")
    return number


@documented
@dataclass(frozen=True)
class Sampling:
    """How responses are sampled; the defaults are those of the paper's code."""

    candidates: int = option(8, "Responses to each prompt.")
    temperature: float = option(
        0.7,
        "What logits are divided by; 0 always takes the likeliest token.",
        values=Values(_temperature, "0 to 100", "float"),
    )
    top_k: int = option(
        50,
        "Only so many of the likeliest tokens are sampled; 0 is all.",
        values=Values(parse_whole, "whole number", "int"),
    )
    top_p: float = option(
        1.0,
        "Only the likeliest tokens that together have this probability are sampled.",
        values=Values(parse_probability, "0 to 1", "float"),
    )
    max_tokens: int = option(1024, "Maximum of tokens of a response; one that has more is cut.")
    seed: int = option(
        0,
        "Gives other responses.",
        "A response depends on it, on its prompt and on which of the prompt's it is, not on other "
        "prompts.",
        values=Values(parse_whole, "whole number", "int"),
    )

    def describe(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


SAMPLING_OPTIONS = options_of(Sampling)


def parse_sampling(options: Mapping[str, Any]) -> Sampling:
    """Turn options into a checked configuration.

    Raises:
        ConfigError: A value is wrong, or several candidates would all be the same.
    """
    sampling = Sampling(**parse_options(Sampling, options))
    if not sampling.top_p:
        raise ConfigError("top_p is a number above 0, at most 1, got 0.")
    if sampling.candidates > 1 and (not sampling.temperature or sampling.top_k == 1):
        raise ConfigError(
            f"candidates={sampling.candidates} with temperature={sampling.temperature:g} and "
            f"top_k={sampling.top_k} would all be the same. Give candidates=1, or sample."
        )
    return sampling
