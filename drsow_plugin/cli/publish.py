"""The command ``drsow publish``."""

from __future__ import annotations

import click

from drsow_plugin.cli.options import CONTEXT


@click.command(context_settings=CONTEXT)
@click.argument("output")
@click.argument("repo_id", metavar="ORG/NAME")
@click.option("--public", is_flag=True, help="For all to see; private otherwise.")
@click.option("--branch", help="Branch to publish on, made where it is missing. [the main one]")
@click.option("--license", help="Licence of the data, as the Hub knows it, such as cc-by-4.0.")
@click.option("--language", multiple=True, help="Language of the texts, such as en; repeatable.")
@click.option("--dry-run", metavar="DIR", help="Write the card into DIR and send nothing.")
def publish(
    output: str,
    repo_id: str,
    public: bool,
    branch: str | None,
    license: str | None,
    language: tuple[str, ...],
    dry_run: str | None,
) -> None:
    """Publish what 'drsow annotate' wrote as OUTPUT, a folder or file, as ORG/NAME on the Hub.

    The rows go first, then a card that says how they were made, merged into the README that is
    there. An interrupted upload can be repeated. Log in with 'hf auth login' first, or set
    HF_TOKEN; a dry run needs neither.
    """
    from drsow_plugin.publishing.publish import publish as send

    where = send(
        output,
        repo_id,
        private=not public,
        revision=branch,
        license=license,
        language=list(language) or None,
        dry_run=dry_run,
    )
    click.echo(f"Wrote {where}" if dry_run else f"Published {where}")
