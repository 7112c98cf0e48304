"""Checks of names on the Hugging Face Hub, made before a library tries for half a minute."""

from __future__ import annotations

from pathlib import Path

from drsow_plugin.errors import ConfigError, HubError

_FILES = {".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json", ".jinja", ".model"}


def require_hub_id(label: str, name: str) -> None:
    """Refuse what can only be a path.

    Args:
        label: What names it, such as ``strong='x.gguf'``.
        name: The name, for which there is no folder here.

    Raises:
        ConfigError: The name is that of a file, or no name that the Hub allows.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    path = Path(name)
    if path.is_file():
        raise ConfigError(f"{label} is a file. Give the folder that holds it.")
    try:
        validate_repo_id(name)
        valid = path.suffix.lower() not in _FILES
    except HFValidationError:
        valid = False
    if not valid:
        raise ConfigError(
            f"{label}: no such file or folder, and not a Hub id (organisation/name). Check the "
            "path."
        )


def require_data(name: str) -> None:
    """Refuse a data set of the Hub that is not in the local cache where the Hub is out of reach.

    ``datasets`` itself finds out after six tries, half a minute later.

    Args:
        name: A Hub id.

    Raises:
        HubError: It cannot be loaded.
    """
    import datasets
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=10)
    except (HfHubHTTPError, ValueError):  # an answer, or no name that could be asked for
        return
    except Exception as error:  # the client that huggingface_hub uses has errors of its own
        if (Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir():
            return
        try:
            snapshot_download(name, repo_type="dataset", local_files_only=True)
        except LocalEntryNotFoundError:
            said = " ".join(str(error).split()) or type(error).__name__
            raise HubError(
                f"The data set {name!r} is neither a file here nor in the local cache, and the "
                f"Hub could not be reached ({said}). Check the name and the network, or give a "
                "local copy."
            ) from error
