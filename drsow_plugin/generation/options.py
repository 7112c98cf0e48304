"""How candidates are generated, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, check_servers, parse_model
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.parse import parse_positive, parse_probability, parse_text
from drsow_plugin.config.sampling import SAMPLING_OPTIONS, Sampling, parse_sampling
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, documented, option

NAME = "policy"
"""What the options of the model begin with, where they do."""


@documented
@dataclass(frozen=True)
class GenerateConfig:
    """What is read and kept, and what samples."""

    prompt_column: str = option("prompt", "The column with the prompts: texts or messages.")
    max_cut: float = option(
        0.9,
        "Largest share of responses that may be cut at `max_tokens`; with more it is an error.",
        "A policy that never stops is found after the first of them.",
        values=Values(parse_probability, "0 to 1", "float"),
    )
    engine: Literal["transformers", "vllm"] = option(
        "transformers",
        "What samples where there is no server: `transformers`, or `vllm` where it is installed.",
        "The same seed gives other responses with another, so that finished work is kept apart.",
    )


GENERATE_OPTIONS = options_of(GenerateConfig)
OF_GENERATION = frozenset((NAME, *SIDE_OPTIONS, *SAMPLING_OPTIONS, *GENERATE_OPTIONS, "batch_size"))
_NOT_OF_VLLM = (
    *("device", "device_map", "attn_implementation", "quantization"),
    *("adapter", "adapter_revision", "batch_size"),
)
_NO_TEXTS_HERE = ("template", "template_args", "template_date", "tokenizer")


@dataclass(frozen=True)
class Setup:
    """A policy, how it is sampled, and what is read.

    Attributes:
        policy: The model.
        sampling: How responses are sampled.
        generate: What is read and kept, and what samples.
        batch_size: Responses that are generated together; ``None`` for the usual.
    """

    policy: ModelConfig
    sampling: Sampling
    generate: GenerateConfig
    batch_size: int | None = None

    def options(self) -> dict[str, Any]:
        """Return the options in force, but for defaults."""
        return {
            NAME: self.policy.source,
            **given_options(self.policy),
            **given_options(self.sampling),
            **given_options(self.generate),
            **({} if self.batch_size is None else {"batch_size": self.batch_size}),
        }


def parse_generation(policy: object, options: Mapping[str, Any]) -> Setup:
    """Turn options into a checked configuration.

    Args:
        policy: The model: a Hub id, a folder, a ``.gguf`` file, ``demo``, or what a server serves.
        options: Those of a model without a prefix, of :class:`~.config.sampling.Sampling`, of
            :class:`GenerateConfig`, and ``batch_size``.

    Raises:
        ConfigError: A name is unknown, or a value is wrong.
    """
    for name in options:
        if name not in OF_GENERATION:
            raise ConfigError(unknown_name("option", name, OF_GENERATION))
    model = parse_model(NAME, parse_text(NAME, policy), options)
    check_servers(options, [model])
    batch_size = parse_positive("batch_size", options.get("batch_size"))
    if model.server:
        idle = [name for name in (*_NO_TEXTS_HERE, "revision") if options.get(name) is not None]
        idle += [name for name in ("batch_size", "engine") if options.get(name) is not None]
        if idle:
            raise ConfigError(
                f"{', '.join(idle)} has no effect with server=…: the server renders prompts and "
                "batches requests by itself. Leave it out."
            )
    generate = GenerateConfig(**parse_options(GenerateConfig, options))
    if generate.engine == "vllm":
        idle = [name for name in _NOT_OF_VLLM if options.get(name) is not None]
        if idle:
            raise ConfigError(
                f"{', '.join(idle)} has no effect with engine=vllm: it loads weights and batches "
                "by itself, on the GPUs of CUDA_VISIBLE_DEVICES. Leave it out, or start vLLM as a "
                "server and name that with server=…."
            )
    return Setup(model, parse_sampling(options), generate, batch_size)
