"""Pages of the documentation: their code blocks, and a reader who does what they say."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.commands import drsow
from helpers.serving import served

OUTPUT = ("text", "json")
"""The languages of blocks that say what the block before them prints."""
_HERE_DOCUMENT = re.compile(r"cat > (\S+) <<'END'\n(.*?)END\n", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is the content of, and its text."""

    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) * 2 == len(re.findall(r"^```", text, re.MULTILINE)), page
    return [Block(*parts) for parts in found]


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a shell block, each on one line, without comments."""
    joined = _HERE_DOCUMENT.sub("", text).replace("\\\n", " ").replace("|\n", "|")
    for line in joined.splitlines():
        if words := shlex.split(line, comments=True):
            yield " ".join(word if word in "|&" else shlex.quote(word) for word in words)


class Reader(contextlib.ExitStack):
    """Does what blocks say, one after the other, in the working directory.

    What is started to run beside the rest is stopped when the reader is closed.

    Attributes:
        not_run: Commands that are left out.
    """

    def __init__(self, not_run: Collection[str] = ()) -> None:
        super().__init__()
        self.not_run = not_run
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def follow(self, block: Block) -> str:
        """Do what one block says; return what it prints."""
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
            return ""
        if block.language == "python":
            stdout = io.StringIO()
            with contextlib.redirect_stdout(stdout):
                exec(block.text, self._names)
            return stdout.getvalue()
        assert block.language == "bash", block
        for name, content in _HERE_DOCUMENT.findall(block.text):
            Path(name).write_text(content, encoding="utf-8")
        return "".join(map(self._run, commands(block.text)))

    def _run(self, command: str) -> str:
        if command in self.not_run:
            return ""
        if command.startswith("drsow serve") and command.endswith(" &"):
            self.enter_context(served(shlex.split(command)[2:-1]))
            return ""
        if command.startswith("curl "):
            return subprocess.run(shlex.split(command), capture_output=True, text=True).stdout
        echo, _, piped = command.rpartition(" | ")
        name, *arguments = shlex.split(piped)
        assert name == "drsow", f"only drsow is run, not: {command}"
        stdin = " ".join(shlex.split(echo)[1:]) + "\n" if echo else None
        result = drsow(*arguments, stdin=stdin)
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception!r}"
        return result.stdout
