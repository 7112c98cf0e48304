"""The command ``drsow serve``."""

from __future__ import annotations

from typing import Any

import click

from drsow_plugin.cli.annotate import VALID
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.options import CONTEXT, EPILOG, config_options, pair_options, serve_options
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.errors import MissingExtraError
from drsow_plugin.serving.options import SERVE_OPTIONS, parse_serving, read_key


@click.command(context_settings=CONTEXT, epilog=EPILOG)
@pair_options
@serve_options
@config_options
def serve(config: str | None, **options: Any) -> None:
    """Serve rewards over HTTP, for trainers and whoever else asks.

    POST /v1/rewards takes prompts (texts or messages) and responses; /openrlhf and /slime take what
    those trainers send. GET /health, /ready and /metrics. A signal ends it when what was accepted
    is answered.

    For example:

      drsow serve --strong org/model-dpo --weak org/model-sft --port 8080
    """
    merged = merge_config(options, config, VALID.union(SERVE_OPTIONS))
    valid = OPTIONS.union(SERVE_OPTIONS)  # those of annotate in a file say nothing here
    pair, serving = parse_serving({n: merged[n] for n in valid if n in merged})
    key = read_key(serving)
    try:
        from drsow_plugin.serving.server import RewardServer, listen, url_of
    except ImportError as error:
        raise MissingExtraError("drsow serve", "serve") from error
    from drsow_plugin.scoring.drsow import DrSoW

    with listen(serving) as listener:
        server = RewardServer(DrSoW.from_config(pair), serving, key)
        click.echo(
            f"drsow: serving {pair.strong.source} over {pair.weak.source} on {url_of(listener)}"
        )
        server.run(listener)
    click.echo("drsow: stopped; all that was accepted is answered")
