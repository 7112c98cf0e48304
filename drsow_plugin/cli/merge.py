"""The command ``drsow merge``."""

from __future__ import annotations

import click

from drsow_plugin.cli.options import CONTEXT


@click.command(context_settings=CONTEXT)
@click.argument("output")
def merge(output: str) -> None:
    """Put shards together that 'drsow annotate' or 'drsow generate' has written with --shard.

    They lie in OUTPUT.shards, in a folder each, whatever machine wrote them. OUTPUT gets the
    rows and the report of a single run. Neither the models nor the data are needed for it.

    For example:

      drsow annotate pairs.jsonl labelled --strong org/model-dpo --weak org/model-sft --shard 1/2

      drsow annotate pairs.jsonl labelled --strong org/model-dpo --weak org/model-sft --shard 2/2

      drsow merge labelled
    """
    from drsow_plugin.annotate.outputs import open_output
    from drsow_plugin.annotate.parts.merging import Merged, merge_parts
    from drsow_plugin.annotate.parts.together import find_parts
    from drsow_plugin.annotate.place import Place
    from drsow_plugin.generation.parts import MergedResponses, are_answered, merge_responses

    target = open_output(output)
    paths = find_parts(target.shards)
    with target.reserved(Place.of(paths[0]).source or "") as folder:
        merged: Merged | MergedResponses
        if any(map(are_answered, paths)):
            merged = merge_responses(paths, folder)
        else:
            merged = merge_parts(paths, folder)
        target.check(merged.data)
        where = target.write(merged.data, merged.report, folder)
    click.echo(f"{merged.report}\nWrote {where}; {target.shards} is not needed any more")
