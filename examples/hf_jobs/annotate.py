# /// script
# requires-python = ">=3.10"
# dependencies = ["drsow-plugin"]
# ///
"""Labels a data set of the Hub on rented GPUs: a script for ``hf jobs uv run``.

annotate.py SOURCE TARGET --strong … --weak …               labels SOURCE, publishes it as TARGET
annotate.py SOURCE TARGET --strong … --weak … --shard 1/4   labels a shard, into TARGET-shards
annotate.py SOURCE TARGET --merge                           merges these, and publishes TARGET

All other options are those of ``drsow annotate``, or of ``drsow publish`` where shards are merged.
Repositories that are made are private.
"""

from __future__ import annotations

import argparse
import sys

import click
from huggingface_hub import HfApi

from drsow_plugin.cli import main as drsow

OUTPUT = "labelled"
"""Where rows lie on the machine of the job, which is gone after it."""


def run(*arguments: str) -> None:
    """Run a command of drsow; where it fails, so does the job, with one line."""
    try:
        drsow(list(arguments), standalone_mode=False)
    except click.ClickException as error:
        sys.exit(f"Error: {error.format_message()}")


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", help="data set that is labelled")
    parser.add_argument("target", metavar="OWNER/NAME", help="data set that is published")
    parser.add_argument("--shard", metavar="K/N", help="label this shard alone")
    parser.add_argument("--merge", action="store_true", help="merge the shards")
    known, options = parser.parse_known_args(arguments)
    shards = f"{known.target}-shards"
    api = HfApi()
    if known.merge:
        folder = f"{OUTPUT}.shards"
        api.snapshot_download(shards, repo_type="dataset", local_dir=folder, allow_patterns="0*/*")
        run("merge", OUTPUT)
        run("publish", OUTPUT, known.target, *options)
    elif known.shard:
        run("annotate", known.source, OUTPUT, "--shard", known.shard, *options)
        api.create_repo(shards, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(repo_id=shards, repo_type="dataset", folder_path=f"{OUTPUT}.shards")
    else:
        run("annotate", known.source, known.target, "--push", *options)


if __name__ == "__main__":
    main(sys.argv[1:])
