"""A data set repository on the Hub, with the tries and the errors that uploading needs.

`huggingface_hub` retries its uploads by itself but no repository, commit or metadata request.
Those are retried here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from drsow_plugin.errors import DataError, HubError
from drsow_plugin.redaction import without_tokens

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each new try
_PASSING = {429, 500, 502, 503, 504}
_CONFLICT = {409, 412}
_WHAT_TO_DO = {
    401: "Log in with 'hf auth login' or set HF_TOKEN; the token needs write access.",
    403: "Use a token with write access to this name: 'hf auth login', and check the token's "
    "permissions at https://huggingface.co/settings/tokens.",
    404: "Check the name and the revision, and that the token ('hf auth login') may write there.",
    409: "Someone else keeps changing the repository; publish again.",
    412: "Someone else keeps changing the repository; publish again.",
}
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def open_api(token: str | None) -> HfApi:
    """Return a client of the Hub; without a token it uses the one that is stored."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="drsow-plugin")


@dataclass
class Repository:
    """A data set repository and the branch that is published on."""

    api: HfApi
    repo_id: str
    revision: str | None
    token: str | None

    @property
    def secret(self) -> str | None:
        """The token in use."""
        from huggingface_hub import get_token

        return self.token or get_token()

    def open(self, *, private: bool) -> str:
        """Create the repository and the branch where they are missing; return its address."""
        self._require_token()
        url = self._ask(self.api.create_repo, private=private, exist_ok=True)
        self.repo_id = url.repo_id
        self._require_private(private)
        if self.revision and not self.revision.startswith("refs/"):
            self._ask(self.api.create_branch, branch=self.revision, exist_ok=True)
        return str(url)

    def check(self, *, private: bool) -> None:
        """Check that somebody is logged in and that a repository there would be used."""
        self._require_token()
        self._try(self.api.whoami)
        if self._ask(self.api.repo_exists):
            self._require_private(private)

    def _require_token(self) -> None:
        if not self.secret:
            raise HubError(
                "Publishing needs a token of the Hugging Face Hub, and there is none. "
                f"{_WHAT_TO_DO[401]}"
            )

    def _require_private(self, private: bool) -> None:
        if private and not self._ask(self.api.repo_info).private:
            raise HubError(
                f"The data set {self.repo_id} is public, and publishing is private by default. "
                "Nothing was uploaded; pass private=False (--public) to publish there, or choose "
                "another name."
            )

    def readme(self) -> str:
        """Return the README as it is now, empty where there is none."""
        return self._try(self._readme)[0]

    def _readme(self) -> tuple[str, str]:
        """Return the README, and the commit that it is of."""
        from huggingface_hub.errors import RemoteEntryNotFoundError

        info = self.api.repo_info(self.repo_id, repo_type="dataset", revision=self.revision)
        sha = str(info.sha)
        try:
            file = self.api.hf_hub_download(
                self.repo_id, "README.md", repo_type="dataset", revision=sha
            )
        except RemoteEntryNotFoundError:
            return "", sha
        try:
            return Path(file).read_bytes().decode("utf-8"), sha
        except UnicodeDecodeError as error:
            raise DataError(
                f"README.md of {self.repo_id} is not in UTF-8: {error}. Save it as UTF-8 there and "
                "publish again."
            ) from error

    def push(self, data: Any, split: str) -> None:
        """Upload the rows; where somebody commits at the same time, again."""
        one = {} if isinstance(data, Mapping) else {"split": split}
        try:
            self._try(
                lambda: data.push_to_hub(
                    self.repo_id, revision=self.revision, token=self.token, **one
                ),
                conflicts=True,
            )
        except ValueError as error:
            raise DataError(
                f"The rows cannot go into the data set {self.repo_id}: {error} Publish under "
                "another name, or remove what does not fit there."
            ) from error

    def write_card(self, merged: Callable[[str], str], files: Mapping[str, bytes]) -> None:
        """Commit a README, merged into what is there, and files; where it changes, again."""
        from huggingface_hub import CommitOperationAdd

        def commit() -> None:
            readme, parent = self._readme()
            contents = {"README.md": merged(readme).encode(), **files}
            self.api.create_commit(
                self.repo_id,
                [CommitOperationAdd(path, content) for path, content in contents.items()],
                commit_message="Describe the Dr. SoW labels",
                repo_type="dataset",
                revision=self.revision,
                parent_commit=parent,
            )

        self._try(commit, conflicts=True)

    def _ask(self, method: Callable[..., _T], **arguments: Any) -> _T:
        """Return what a method of the client answers for the repository."""
        return self._try(lambda: method(self.repo_id, repo_type="dataset", **arguments))

    def _try(self, action: Callable[[], _T], *, conflicts: bool = False) -> _T:
        """Return what an action returns, after as many tries as there are waits, and one."""
        passing = _PASSING | (_CONFLICT if conflicts else set())
        waits = iter(WAITS)
        while True:
            try:
                return action()
            except Exception as error:
                failed = _http_error(error)
                if failed is None:
                    raise
                status, wait = _status(failed), next(waits, None)
                if wait is None or (status or 503) not in passing or _is_offline(failed):
                    raise self._refused(failed, status) from None
            _log.info("The Hub answered %s; trying again in %s s.", status or "nothing", wait)
            time.sleep(wait)

    def _refused(self, error: BaseException, status: int | None) -> HubError:
        hint = _WHAT_TO_DO.get(status or 0, "Publish again later: it goes on where this stopped.")
        message = without_tokens(" ".join(str(error).split()), self.secret)
        return HubError(f"The Hub could not take the data set {self.repo_id}: {message} {hint}")


def _http_error(error: BaseException | None) -> BaseException | None:
    """Return the failed request behind an error, or None where it was no request that failed."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        lineage = [base.__name__ for base in type(error).__mro__]
        if _status(error) or "TransportError" in lineage or isinstance(error, ConnectionError):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def _is_offline(error: BaseException) -> bool:
    """Return whether no request was made because HF_HUB_OFFLINE is set."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
