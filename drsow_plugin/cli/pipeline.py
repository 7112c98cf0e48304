"""The command ``drsow pipeline``."""

from __future__ import annotations

from pathlib import Path

import click

from drsow_plugin.cli.options import CONTEXT


@click.command(context_settings=CONTEXT)
@click.argument("recipe")
@click.option("--out", metavar="FOLDER", help="Where all is written. [out/NAME of the recipe]")
@click.option("--until", metavar="STEP", help="The last step to run, by its name. [all of them]")
@click.option("--dry-run", is_flag=True, help="Show the commands, and run none.")
@click.option("--allow-code", is_flag=True, help="Let the recipe run code: a plugin, or a model's.")
def pipeline(
    recipe: str, out: str | None, until: str | None, dry_run: bool, allow_code: bool
) -> None:
    """Run a recipe: from prompts to a tuned model, measured before and after.

    RECIPE is a YAML file; 'recipes/' has some. Each step is a command, which is shown and can be
    run alone. Finished steps are kept, and those that are done are not run again: after an
    interruption run the same command. A step runs anew where the recipe, or a file that it reads,
    was changed.

    For example:

      drsow pipeline recipes/mini.yaml
    """
    from drsow_plugin.pipeline.checks import check_installed
    from drsow_plugin.pipeline.finished import is_done
    from drsow_plugin.pipeline.plan import make_plan
    from drsow_plugin.pipeline.recipe import read_recipe
    from drsow_plugin.pipeline.results import write_results
    from drsow_plugin.pipeline.runner import as_command, run_plan, steps_until

    parsed = read_recipe(recipe, allow_code=allow_code)
    plan = make_plan(parsed, Path(out or f"out/{parsed.name}").expanduser())
    if dry_run:
        for step in steps_until(plan, until):
            done = " (finished)" if is_done(plan, step) else ""
            click.echo(f"# {step.name}{done}\n{as_command(step)}")
        return
    check_installed(parsed)
    ran = run_plan(plan, click.echo, until=until)
    click.echo(f"{ran.finished} steps run, {ran.kept} finished before")
    if until is None:
        text, file = write_results(parsed, plan)
        click.echo(f"\n{text}\n\nWrote {file}")
