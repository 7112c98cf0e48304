"""What a model is made of: files, parameters or an engine, and whether they are still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.hashing import Stamp, file_sha256, text_sha256
from drsow_plugin.models.sources import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from drsow_plugin.engines import Engine

_HASHED = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja", ".py"}


class Files:
    """The files of a model or an adapter, as they were when this was made.

    Make it before anything is read from them; what is read later is of the same files if
    :meth:`check` finds nothing.
    """

    def __init__(self, label: str, folder: Path, file: str | None = None) -> None:
        """Look at the files; nothing is read but what an index says.

        Args:
            label: What they are, as the option that named them.
            folder: Where they are located.
            file: The only one that counts, such as a GGUF file; ``None`` is all that a loader
                may read, in other folders too where an index names them.
        """
        self._label, self._folder, self._file = label, folder, file
        self._stamps = self._look()
        self._sha256: dict[str, str] | None = None

    def sha256(self) -> dict[str, str]:
        """Return the SHA-256 of each file, by its name.

        Raises:
            EngineError: A file was changed.
        """
        if self._sha256 is None:
            hashes = {name: self._hash(name) for name in self._stamps}
            self.check()
            self._sha256 = hashes
        return self._sha256

    def check(self) -> None:
        """Check that no file was changed; sizes and times decide, hashes where these cannot.

        A hash is taken again where the file had only just been written when it was first
        looked at, so that its time may hide a change, and where nothing but its attributes
        or its inode changed.

        Raises:
            EngineError: One was changed, removed or added.
        """
        now = self._look()
        for name in sorted({*self._stamps, *now}):
            before, after = self._stamps.get(name), now.get(name)
            if before is None or after is None:
                raise self._changed(name, "removed" if after is None else "added")
            if before == after and before.is_settled:
                continue
            if (before.size, before.mtime_ns) != (after.size, after.mtime_ns):
                raise self._changed(name, "changed")
            known = None if self._sha256 is None else self._sha256[name]
            if known is None and before == after:
                continue
            if known != self._hash(name):
                raise self._changed(name, "changed")
            self._stamps[name] = after

    def _look(self) -> dict[str, Stamp]:
        names = [self._file] if self._file else sorted({*self._top(), *self._indexed()})
        stamps = {name: Stamp.of(self._folder / name) for name in names}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def _top(self) -> Iterator[str]:
        if self._folder.is_dir():
            yield from (path.name for path in self._folder.iterdir() if path.suffix in _HASHED)

    def _indexed(self) -> Iterator[str]:
        """Yield the files that an index of weights names, wherever they are."""
        for index in self._folder.glob("*.index.json"):
            try:
                named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
                yield from {Path(name).as_posix() for name in named}
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue  # no index of weights: a loader that reads it as one says so

    def _hash(self, name: str) -> str:
        try:
            return file_sha256(self._folder / name)
        except OSError as error:
            raise self._changed(name, "removed, or made unreadable,") from error

    def _changed(self, name: str, how: str) -> EngineError:
        return EngineError(
            f"{self._label}: {name} was {how} while the model was in use, so rewards would be of "
            "another model than the one that was opened. None of this call are kept. Leave the "
            "files as they are while a pair is open, and open it again."
        )


class Parameters:
    """A model in memory as it was when it was first hashed.

    That is its parameters, its buffers and its configuration. What else may decide its logits,
    such as an attribute that a module took from the configuration or code, is not seen.
    """

    def __init__(self, label: str, model: PreTrainedModel) -> None:
        """Remember the model.

        Args:
            label: What it is, as the option that gave it.
            model: The model.
        """
        self._label, self._model = label, model
        self._sha256: dict[str, str] | None = None
        self._sums: list[tuple[int, int]] = []

    def sha256(self) -> dict[str, str]:
        """Return the SHA-256 of what is in memory, and of the configuration.

        Raises:
            ConfigError: Some of it is not in memory.
            EngineError: It was changed meanwhile.
        """
        import torch

        from drsow_plugin.models.adapters import as_bytes, checksums, tensors_of

        if self._sha256 is None:
            tensors = {**self._model.state_dict(), **dict(self._model.named_buffers())}
            digest = hashlib.sha256(type(self._model).__name__.encode())
            self._sums = checksums(tensors_of(self._model))
            for name, tensor in sorted(tensors.items()):
                if not isinstance(tensor, torch.Tensor):
                    continue  # of a layer's own, such as a format version
                if tensor.device.type == "meta":
                    raise ConfigError(
                        f"{self._label}: {name} is not in memory, so what the model is cannot be "
                        "told. Give the folder that it was loaded from."
                    )
                digest.update(f"{name} {tensor.dtype} {[*tensor.shape]} ".encode())
                digest.update(as_bytes(tensor).cpu().numpy().data)
            self._sha256 = {
                "parameters": digest.hexdigest(),
                "configuration": self._configuration(),
            }
            self.check()
        return self._sha256

    def check(self) -> None:
        """Check that the model is the one that was hashed, if it was.

        Raises:
            EngineError: A parameter, a buffer or the configuration was changed.
        """
        from drsow_plugin.models.adapters import checksums, tensors_of

        if self._sha256 is None:
            return
        is_same = self._sha256["configuration"] == self._configuration()
        if not is_same or checksums(tensors_of(self._model)) != self._sums:
            raise EngineError(
                f"{self._label} was changed after it had been identified by its parameters and "
                "configuration, so rewards would be of another model. None of this call are kept. "
                "Open the pair again."
            )

    def _configuration(self) -> str:
        """Return the SHA-256 of the configuration."""
        config = self._model.config.to_dict()
        for unimportant in ("_name_or_path", "transformers_version"):
            config.pop(unimportant, None)
        return text_sha256(json.dumps(config, sort_keys=True, default=str))


class EngineIdentity:
    """An engine that was given as an object, which says itself what it is."""

    def __init__(self, label: str, engine: Engine) -> None:
        """Remember the engine.

        Args:
            label: What it is, as the option that gave it.
            engine: The engine.
        """
        self._label, self._engine = label, engine

    def sha256(self) -> dict[str, str]:
        """Return the SHA-256 of what the engine says that it is.

        Raises:
            ConfigError: It says nothing.
        """
        identity = getattr(self._engine, "identity", None)
        if not isinstance(identity, str) or not identity:
            raise ConfigError(
                f"{self._label}: this engine has no identity, so that its log-probs cannot be told "
                "from those of another. Give it an attribute 'identity', a text that is another "
                "whenever its log-probs would be others."
            )
        return {"engine": text_sha256(identity)}

    def check(self) -> None:
        """Take the engine's word for it."""


class Contents:
    """What a model and its adapter hold: files here, or what a commit on the Hub has.

    Attributes:
        adapter: What identifies the adapter, as plain values; ``None`` without one.
        adapter_commit: The commit of an adapter on the Hub.
    """

    def __init__(
        self, side: str, config: ModelConfig, source: Source, adapter: Path | str | None
    ) -> None:
        """Look at the files, before anything is read from them; those of the adapter are read.

        Args:
            side: The side's name.
            config: The side.
            source: Where the model is located.
            adapter: The adapter's folder, or its commit.
        """
        label, given = f"{side}={config.source!r}", config.given
        self._commit = source.commit
        self._model: Files | Parameters | EngineIdentity | None = None
        if given.model is not None:
            self._model = Parameters(label, given.model)
        elif given.engine is not None:
            self._model = EngineIdentity(label, given.engine)
        elif source.local:
            self._model = Files(label, Path(source.name), source.gguf_file)
        self._adapter: Files | None = None
        self.adapter: dict[str, Any] | None = None
        self.adapter_commit = adapter if isinstance(adapter, str) else None
        if isinstance(adapter, Path):
            self._adapter = Files(f"{side}_adapter={config.adapter!r}", adapter)
            self.adapter = {"sha256": self._adapter.sha256()}
        elif adapter is not None:
            self.adapter = {"revision": adapter}

    def describe(self) -> dict[str, Any]:
        """Return what identifies the weights: the hashes of files, or the commit.

        Raises:
            EngineError: A file was changed.
        """
        return (
            {"revision": self._commit} if self._model is None else {"sha256": self._model.sha256()}
        )

    def is_known_as(self, other: Contents) -> bool | None:
        """Tell whether both are one model, where servers say so; ``None`` if that is not known."""
        return None

    def check(self) -> None:
        """Check that no file was changed; see :meth:`Files.check`.

        Raises:
            EngineError: One was.
        """
        for part in (self._model, self._adapter):
            if part is not None:
                part.check()
