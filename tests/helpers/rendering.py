"""A renderer that is asked for one row."""

from __future__ import annotations

from typing import Any

from drsow_plugin.errors import TemplateError
from drsow_plugin.records import TokenPair
from drsow_plugin.tokens import renderer


class Renderer(renderer.Renderer):
    """Renders rows one at a time, and raises what is wrong with one."""

    def encode(self, messages: list[dict[str, Any]], response: str, where: str) -> TokenPair:
        (pair,) = self.encode_all([(messages, response, where)])
        if isinstance(pair, TemplateError):
            raise pair
        return pair
