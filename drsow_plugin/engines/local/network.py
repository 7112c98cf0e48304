"""A causal language model of transformers, split into its backbone and its head.

::

    logits = model(input_ids=ids).logits
    logits == network.logits(network.hidden(ids)[0])  # for one sequence

The backbone turns token ids into hidden states; the head turns hidden states into logits. Split
like this, the vocabulary projection runs only where a response token is predicted, and in
chunks. The head is the model's own ``forward`` with its backbone replaced by one that answers
with hidden states that are there, so that soft-capping, logit scaling and whatever else a model
does there is kept.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import chain
from typing import Any

import torch

from drsow_plugin.engines.local import configuration
from drsow_plugin.engines.local.attention import Packing, attend_to_nothing, attending, packed
from drsow_plugin.engines.local.causality import check_causal, check_length
from drsow_plugin.engines.local.exactness import full_precision
from drsow_plugin.engines.local.linear import is_linear, linear_layer
from drsow_plugin.engines.local.masks import Masks
from drsow_plugin.engines.local.noise import tolerance
from drsow_plugin.engines.local.tree import TokenTree
from drsow_plugin.records import TokenPair

logger = logging.getLogger(__name__)

_LONG = 256  # tokens: four times what a Reformer attends to in whole


class Network:
    """One causal language model whose head is applied at chosen positions only.

    Attributes:
        backbone: The part that turns token ids into hidden states.
        compiled: :class:`.CompiledLayers` to compute chunks by; ``None`` is the layers as they are.
    """

    backbone: Any = None
    compiled: Any = None

    @full_precision()
    def __init__(self, model: Any) -> None:
        """Wrap a model and check, on a probe, that backbone and head make its own logits.

        Args:
            model: A transformers causal language model in evaluation mode.

        Raises:
            ConfigError: It is not causal, or random.
        """
        self._model = model
        self._num_ids = min(self.vocab_size, len(self.embeddings.weight))
        for module in model.modules():
            configuration.set_for_scoring(getattr(module, "config", None))
        for check in (check_causal, check_length):
            check(self.name, self._all_logits, self.ordinary_ids(8))
        self._output_type: Any = None
        self.splits = any(self._check(backbone) for backbone in _backbones(model))
        if not self.splits:
            logger.warning(
                "%s: its head cannot be applied apart from its backbone; logits are computed at "
                "every position, which takes more memory.",
                self.name,
            )
        with torch.inference_mode():
            hidden = self.hidden(self.ordinary_ids(8))[0]
            self._head_is_linear = self.splits and is_linear(model, hidden, self.logits)

    def _all_logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where token ids go in; for offloaded weights, where they are brought to."""
        hook = getattr(self.embeddings, "_hf_hook", None)
        execution = getattr(hook, "execution_device", None)
        return torch.device(self.embeddings.weight.device if execution is None else execution)

    @property
    def embeddings(self) -> Any:
        """What turns token ids into what the first layer is given, a module."""
        return self._model.get_input_embeddings()

    @property
    def vocab_size(self) -> int:
        """Entries in the vocabulary projection."""
        return int(self._model.config.get_text_config().vocab_size)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of right-padded sequences.

        No attention mask is given: attention is causal, so what stands right of a token,
        padding included, does not reach it.

        Args:
            ids: Token ids, (sequences, length).

        Returns:
            (sequences, length, hidden size), in the model's dtype; where the model cannot be
            split, its logits, (sequences, length, vocabulary).
        """
        if self.scaling.by_length and ids.shape[1] > (self.scaling.max_short or 0):
            # After a longer sequence its factors would stay; after a short one they start anew.
            self._model(input_ids=ids[:1, :1], use_cache=False)
        if not self.splits:
            return self._all_logits(ids)
        return self.backbone(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def hidden_of_chunk(self, packing: Packing) -> torch.Tensor:
        """Return the hidden states of a chunk of a tree of sequences.

        Args:
            packing: The chunk; the KV cache that the next one needs is left in it.

        Returns:
            (tokens, hidden size), in the model's dtype.

        Raises:
            UnshareableError: The model attends in a way that a tree cannot follow.
        """
        by = self.hidden_by_layers if self.compiled is None else self.compiled.hidden_of_chunk
        return by(packing)

    def hidden_by_layers(self, packing: Packing) -> torch.Tensor:
        """Return the same by the layers as they are now; what a packing holds is left out."""
        packing.next_cache.clear()
        packing.masks = Masks(self.masks.made)
        return self._attended(packing)

    def attending(self) -> AbstractContextManager[None]:
        """Return a context for chunks, in which the model's own ``forward`` does not work."""
        return attending(self._model)

    @cached_property
    def masks(self) -> Masks:
        """The masks that the model makes, read from a sequence on its way through the backbone."""
        ids = torch.cat([self._all_kinds, self.ordinary_ids(20)], dim=1)[0].tolist()
        tree = TokenTree([TokenPair(tuple(ids[:1]), tuple(ids[1:]))])
        packing = Packing(tree.chunk(tree.start, tree.size), attend_to_nothing, cache=())
        self._attended(packing)
        return packing.masks

    @torch.inference_mode()
    def _attended(self, packing: Packing) -> torch.Tensor:
        ids = packing.on("ids", packing.chunk.ids, self.device)[None]
        positions = packing.on("positions", packing.chunk.positions, self.device)[None]
        with packed(self._model, packing):
            output = self.backbone(input_ids=ids, position_ids=positions, use_cache=False)
        return output.last_hidden_state[0]  # type: ignore[no-any-return]

    @full_precision()
    def check_long_sequences(self) -> None:
        """Try on a longer sequence what was tried on a short one when the model was wrapped.

        Some models attend in another way to sequences longer than a few dozen tokens.

        Raises:
            ConfigError: It is not causal, or random.
        """
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        length = min(_LONG, (limit or 2 * _LONG) // 2)
        check_causal(self.name, self.hidden, self.ordinary_ids(length))

    @property
    def takes_positions(self) -> bool:
        """Whether the backbone may be told the position of each token."""
        parameters = inspect.signature(self.backbone.forward).parameters.values()
        return any(p.name == "position_ids" or p.kind is p.VAR_KEYWORD for p in parameters)

    @property
    def num_layers(self) -> int:
        """Number of layers, by the configuration."""
        return int(getattr(self._model.config.get_text_config(), "num_hidden_layers", 1))

    @property
    def windows(self) -> list[int]:
        """Lengths from which on the model, by its configuration, may not see a whole sequence."""
        return configuration.windows(self._model.config)

    @property
    def max_tokens(self) -> int | None:
        """Maximum tokens at once that the model treats all alike; ``None`` for any number."""
        return configuration.max_tokens(self._model.config)

    @property
    def bytes_per_token(self) -> int:
        """A bound of the memory for one token on its way through a layer, from the sizes."""
        hidden = int(self.embeddings.weight.shape[-1])
        width = configuration.max_width(self._model.config) or 4 * hidden
        # In the layer's dtype: its gate, its product and its result beside queries, keys, values
        # and residuals; in float32: the normalisation.
        layer = self.dtype.itemsize * (4 * width + 10 * hidden) + 4 * 3 * hidden
        return layer if self.splits else max(layer, 8 * self.vocab_size)

    @property
    def name(self) -> str:
        """Class of the model."""
        return type(self._model).__name__

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the hidden states."""
        return self.embeddings.weight.dtype  # type: ignore[no-any-return]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits, (positions, vocabulary), of hidden states, (positions, size)."""
        if not self.splits:
            return hidden
        with self._backbone_answering(hidden.unsqueeze(0)):
            positions = torch.zeros(1, len(hidden), dtype=torch.long, device=self.device)
            return self._model(input_ids=positions, use_cache=False).logits[0]  # type: ignore[no-any-return]

    @property
    def linear_head(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Weight, (vocabulary, hidden size), and bias of a head that is just a linear layer.

        ``None`` for any other, such as one that an adapter, soft-capping or quantization changes.
        """
        layer = linear_layer(self._model) if self._head_is_linear else None
        return None if layer is None else (layer.weight, layer.bias)

    @contextmanager
    def _backbone_answering(self, hidden: torch.Tensor) -> Iterator[None]:
        """Make the backbone answer with hidden states that are there."""
        own = self.backbone.__dict__.get("forward")
        self.backbone.forward = lambda *_, **__: self._output_type(last_hidden_state=hidden)
        try:
            yield
        finally:
            if own is None:
                del self.backbone.forward
            else:
                self.backbone.forward = own

    @property
    def scaling(self) -> configuration.Scaling:
        """How the model scales the positions of long sequences."""
        return configuration.scaling(self._model.config)

    def ordinary_ids(self, number: int) -> torch.Tensor:
        """Return ascending token ids with nothing special about them, (1, number)."""
        ids = configuration.ordinary_ids(self._model.config, self._num_ids, number)
        return torch.tensor([ids], device=self.device)

    @torch.inference_mode()
    def _check(self, backbone: Any) -> bool:
        """Compare a backbone and the head, joined, with the model as it is, on a few tokens."""
        self.backbone, self.splits = backbone, True
        ids = self._all_kinds
        whole = self._all_logits(ids)[0]
        try:
            output = self.backbone(input_ids=ids, use_cache=False)
            self._output_type = type(output)
            joined = self.logits(output.last_hidden_state[0])
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a part of a model, run in a way it was not written for
            return False
        return joined.shape == whole.shape and bool(
            (joined - whole).abs().max() <= tolerance(whole)
        )

    @cached_property
    def _all_kinds(self) -> torch.Tensor:
        """Token ids of which some are special, unless the model fails on these, (1, tokens)."""
        ids = self.ordinary_ids(8)
        special = [i for i in configuration.special_ids(self._model.config) if i < self._num_ids]
        both = torch.cat([ids, ids.new_tensor([special])], dim=1)
        try:
            self._all_logits(both)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # such as a picture's id without a picture
            return ids
        return both


def _backbones(model: Any) -> Iterator[Any]:
    """Yield what may be the backbone of a model, outermost first.

    A model that reads pictures too replaces their ids outside of the part that reads text.
    """
    seen = {id(model)}
    decoder = getattr(model, "get_decoder", lambda: model)()
    for module in chain([model.base_model, decoder], model.modules()):
        if id(module) not in seen and "input_ids" in inspect.signature(module.forward).parameters:
            seen.add(id(module))
            yield module
