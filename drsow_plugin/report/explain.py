"""Where the rewards of responses to one prompt come from, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drsow_plugin.printable import printable
from drsow_plugin.report.tokens import TokenView, deciding

_BLUE, _ORANGE = (24, 25, 31), (130, 166, 208)
"""Colours of the 256 of terminals, from the deepest to the lightest: more likely under the strong
model, and under the weak one. Blue and orange are told apart by those who see red as green too."""

_WIDEST = 28


def explained(views: Sequence[TokenView], *, top: int, tokens: bool, color: bool) -> Iterator[str]:
    """Yield the lines of an explanation.

    Args:
        views: The responses to one prompt, the best one and all others in the order given.
        top: How many of the tokens that weigh most.
        tokens: Whether all tokens are listed.
        color: Whether the terminal shows colours.
    """
    mean = any(view.reward.scoring.reduction == "mean" for view in views)
    unit, digits = ("nats a token", 4) if mean else ("nats", 2)
    for number, view in enumerate(views, 1):
        if number > 1:
            yield ""
        yield from _response(number, view, unit, digits, tokens=tokens, color=color)
    scored = [(n, view) for n, view in enumerate(views, 1) if view.segments]
    if not scored:
        return
    scored.sort(key=lambda entry: -(entry[1].reward.reward or 0.0))
    compared = scored[:1] if len(scored) == 1 else [scored[0], scored[1]]
    yield ""
    if len(compared) == 1:
        yield f"What weighs most in response {compared[0][0]}:"
    else:
        (first, best), (second, other) = compared
        margin = (best.reward.reward or 0.0) - (other.reward.reward or 0.0)
        yield (
            f"Response {first} beats response {second} by {margin:.{digits}f} {unit}. What decided:"
        )
    signs = zip(compared, (1, -1), strict=False)
    found = deciding([(view, sign) for (_, view), sign in signs], top)
    numbers = {1: compared[0][0], -1: compared[-1][0]}
    rows = [
        (_quoted(text), f"response {numbers[sign]}", f"{value:+.{digits}f}")
        for text, sign, value in found
    ]
    yield from _table(("token", "in", "adds"), rows)


def _response(
    number: int, view: TokenView, unit: str, digits: int, *, tokens: bool, color: bool
) -> Iterator[str]:
    reward = view.reward
    if reward.reward is None:
        yield f"Response {number}: no reward: {printable(reward.reason or '')}"
        return
    yield (
        f"Response {number}: reward {reward.reward:+.{digits}f} {unit} = strong "
        f"{reward.strong_logprob:.2f} ({reward.strong_tokens} tokens), weak "
        f"{reward.weak_logprob:.2f} ({reward.weak_tokens} tokens)"
    )
    parts = view.parts()
    if color:
        yield "".join(_colored(view, place, parts) for place in range(len(parts)))
    else:
        yield printable(view.text, lines=True)
    for note in reward.notes:
        yield f"note: {printable(note)}"
    if tokens:
        rows = [
            (
                _quoted(view.label(segment)),
                f"{segment.strong:.2f}" if segment.strong_tokens else "none",
                f"{segment.weak:.2f}" if segment.weak_tokens else "none",
                f"{part:+.{digits}f}",
            )
            for segment, part in zip(view.segments, parts, strict=True)
        ]
        yield from _table(("token", "strong", "weak", "difference"), rows)


def _colored(view: TokenView, place: int, parts: Sequence[float]) -> str:
    """Return a segment with the colour of what it adds: none where that is little."""
    segment, part = view.segments[place], parts[place]
    if segment.end == segment.start:
        return ""
    sizes = sorted(map(abs, parts))
    scale = max(sizes[int(0.95 * (len(sizes) - 1))], 1e-9)
    share = min(1.0, abs(part) / scale)
    text = printable(view.text[segment.start : segment.end], lines=True)
    if share < 0.15:
        return text
    shades = _BLUE if part > 0 else _ORANGE
    shade = shades[0 if share > 0.66 else 1 if share > 0.33 else 2]
    ink = 231 if part > 0 and share > 0.33 else 16
    on = f"\x1b[38;5;{ink};48;5;{shade}m"
    # A line break inside of a colour would paint the rest of the line.
    return "\n".join(f"{on}{piece}\x1b[0m" if piece else "" for piece in text.split("\n"))


def _quoted(text: str) -> str:
    shown = printable(text.replace("\n", "\\n").replace("\t", "\\t"))
    if len(shown) > _WIDEST:
        shown = f"{shown[: _WIDEST - 1]}…"
    return shown if shown.startswith("\u2039") else f"'{shown}'"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for cells in (names, *rows):
        first = f"  {cells[0]:<{widths[0]}}"
        rest = (f"{c:>{w}}" for c, w in zip(cells[1:], widths[1:], strict=True))
        yield "  ".join((first, *rest)).rstrip()
