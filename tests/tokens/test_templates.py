"""Chat templates: their arguments, where they put a response, and what goes wrong in them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny
from helpers.rendering import Renderer
from transformers.utils import chat_template_utils

from drsow_plugin import DrSoW
from drsow_plugin.config.model import DEFAULT_DATE
from drsow_plugin.config.pair import as_options, parse_pair
from drsow_plugin.errors import ConfigError, TemplateError
from drsow_plugin.tokens import bounds
from drsow_plugin.tokens.compiled_template import _plain
from drsow_plugin.tokens.renderer import REWRITTEN
from drsow_plugin.tokens.sandbox import BoundedTemplate

USER = [{"role": "user", "content": "What is the capital of France?"}]
REASONED = "<think>\nIt is Paris?\n</think>\n\nParis."


def renderer(template: str, **options: Any) -> Renderer:
    return Renderer(tiny.tokenizer("bytes"), template, **options)


@pytest.mark.parametrize(
    ("template", "ending", "stands"),
    [
        (tiny.THINKING, r"assistant\\n'", r"<think>\\n\\n</think>"),
        (tiny.REASONER, r"<think>\\n'", r"assistant\\n'"),
        (tiny.CHANNELS, r"assistant'", r"<\|channel\|>final<\|message\|>'"),
        (tiny.UNPROMPTED, r"<\|im_end\|>\\n'", r"<\|im_start\|>assistant\\n'"),
    ],
)
def test_a_template_that_puts_a_response_elsewhere_is_refused_with_advice(
    template: str, ending: str, stands: str
) -> None:
    with pytest.raises(ConfigError, match=f"ends in .*{ending}.*behind .*{stands}") as caught:
        renderer(template)
    assert """template_args='{"enable_thinking": false}'""" in str(caught.value)
    assert "template=FILE" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("template", [t for t in tiny.TEMPLATES if t not in tiny.TEMPLATE_ARGS])
def test_templates_that_differ_in_white_space_at_most_are_taken(template: str) -> None:
    assert renderer(tiny.TEMPLATES[template]).encode(USER, "Paris.", "row 0").response_ids


def test_what_a_template_does_to_the_users_turn_is_no_reason_to_refuse() -> None:
    last = "m['content'] + (' /x' if loop.last and m['role'] == 'user' else '')"
    made = renderer(tiny.CHATML.replace("m['content']", last))
    assert REWRITTEN in made.encode(USER, "Paris.", "row 0").notes


def test_arguments_reach_the_template() -> None:
    made = renderer(tiny.THINKING, template_args={"enable_thinking": False})
    pair = made.encode(USER, "Paris.", "row 0")
    tokenizer = tiny.tokenizer("bytes")
    whole = tokenizer.apply_chat_template(
        [*USER, {"role": "assistant", "content": "Paris."}],
        chat_template=tiny.THINKING,
        tokenize=False,
    )
    ids = tokenizer.encode(whole.rstrip("\n"), add_special_tokens=False)
    assert list(pair.prompt_ids + pair.response_ids) == ids and pair.notes == ()


def test_responses_with_reasoning_of_their_own_can_be_asked_for() -> None:
    made = renderer(tiny.THINKING, template_args={"enable_thinking": True})
    pair = made.encode(USER, REASONED, "row 0")
    assert REWRITTEN not in pair.notes
    with pytest.raises(TemplateError, match=r"row 1: between .* writes '<think>"):
        made.encode(USER, "Paris.", "row 1")
    for template in (tiny.REASONER, tiny.CHANNELS):
        with pytest.raises(ConfigError, match="template=FILE"):
            renderer("{{ effort }}" + template, template_args={"effort": "low"})


def test_an_argument_that_the_template_does_not_read_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no variable 'enable_thinkng'.*enable_thinking"):
        renderer(tiny.THINKING, template_args={"enable_thinkng": False})


@pytest.mark.parametrize("given", ["text", "file", "mapping"])
def test_template_arguments_are_json_a_file_or_a_mapping(tmp_path: Path, given: str) -> None:
    args = {"enable_thinking": False, "tools": [{"name": "f"}]}
    file = tmp_path / "args.json"
    file.write_text(json.dumps(args), encoding="utf-8")
    value = {"text": json.dumps(args), "file": str(file), "mapping": args}[given]
    config = parse_pair({"strong": "a", "weak": "b", "template_args": value})
    assert json.loads(config.strong.template_args or "") == args
    assert config.weak.template_args == config.strong.template_args
    assert parse_pair(as_options(config)) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template_args": "{]"}, "strong_template_args is not valid JSON"),
        ({"template_args": "nowhere.json"}, "no such file"),
        ({"weak_template_args": 4}, "weak_template_args is a JSON object"),
        ({"template_args": {"messages": []}}, "'messages' is not a variable of yours"),
        (
            {"weak_template": "none", "weak_template_args": {"a": 1}},
            "weak_template_args has no effect with weak_template=none",
        ),
    ],
)
def test_template_arguments_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_pair({"strong": "a", "weak": "b", **options})


def test_arguments_for_both_leave_a_plain_lm_alone() -> None:
    config = parse_pair(
        {"strong": "a", "weak": "b", "weak_template": "none", "template_args": {"a": 1}}
    )
    assert config.strong.template_args and config.weak.template_args is None


def test_arguments_are_recorded_and_change_the_fingerprint(
    tmp_path: Path, strong: str, weak: str
) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(tiny.THINKING.replace("not enable_thinking", "enable_thinking < 2"))
    pairs = [
        DrSoW(strong, weak, template=str(file), strong_template_args={"enable_thinking": number},
              weak_template_args={"enable_thinking": 0})
        for number in (0, 1)
    ]  # fmt: skip
    assert pairs[0].fingerprint != pairs[1].fingerprint
    assert pairs[1].describe()["strong"]["template_args"] == {"enable_thinking": 1}
    both = pairs[1].score(["Q?"], ["A."])[0]
    assert both.strong_tokens == both.weak_tokens and both.reward == pytest.approx(
        pairs[0].score(["Q?"], ["A."])[0].reward, abs=1e-5
    )
    with pytest.raises(ConfigError, match=r"^strong=.* ends in"):
        DrSoW(strong, weak, template=str(file), weak_template_args={"enable_thinking": 0})


DATED = "{{ strftime_now('%d %b %Y %H:%M') }}" + tiny.CHATML
BAD = {
    "power": "{{ 10 ** (10 ** 10) }}",
    "power_that_is_never_reached": "{% if '!' in messages[0].content %}{{ 9**(9**9) }}{% endif %}",
    "repeated_text": "{{ 'x' * 10**9 }}",
    "repeated_list": "{{ [1] * 10**9 }}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}",
    "doubling_lists": "{% set n = namespace(x=('a',)) %}{% for i in range(60) %}"
    "{% set n.x = (n.x, n.x) %}{% endfor %}{{ n.x in [1] }}",
    "doubling_names": "{% set n = namespace(x=1) %}{% for i in range(60) %}"
    "{% set n.x = namespace(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
    "branches": "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else '' }}{% endmacro %}{{ f(60) }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "division": "{{ 1 / 0 }}",
    "centred": "{{ 'x' | center(10**9) }}",
    "justified": "{{ 'x'.ljust(10**9) }}",
    "printed": "{{ '%1000000000d' % 1 }}",
    "printed_starred": "{{ '%*d' % (10**9, 1) }}",
    "formatted": "{{ '{:{}}'.format(1, 10**9) }}",
    "replaced": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "replaced_bytes": "{{ ('a' * 99999).encode().replace('a'.encode(), ('b' * 999).encode()) }}",
    "expanded": "{{ ('\t' * 99999).expandtabs(99999) }}",
    "concatenated": "{% set x = 'a' * 60000 %}{{ x ~ 1 ~ x }}",
    "replaced_by_a_filter": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "joined": "{{ ('a' * 99999) | join('b' * 99999) }}",
    "joined_by_a_method": "{{ ('b' * 99999).join('a' * 99999) }}",
    "translated": "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "sliced": "{{ [1] | slice(10**9) | list }}",
    "bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "indented": "{{ ('\n' * 99999) | indent(99999) }}",
    "written": "{% for i in range(99999) %}" + "x" * 999 + "{% endfor %}",
    "buffered": "{% set b %}{% for i in range(99999) %}" + "x" * 999 + "{% endfor %}{% endset %}",
    "random": "{{ [1, 2] | random }}",
    "drawn": "{{ lipsum() }}",
    "nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_templates_that_run_on_or_fail_are_one_line(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(bounds, "MAX_STEPS", 100_000)
    monkeypatch.setattr(bounds, "MAX_CHARACTERS", 100_000)
    with pytest.raises(ConfigError, match=r"cannot (be compiled|render)") as caught:
        renderer(bad.replace("'!' in", "'!' not in") + tiny.CHATML)
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "rows", "a row that makes a template run on or fail", "that row alone has no reward"
)
@pytest.mark.parametrize("bad", ["power", "loops", "doubling", "recursion", "division", "bytes"])
def test_a_template_that_fails_for_one_row_costs_that_row_alone(bad: str) -> None:
    guarded = (
        "{% if messages[0].content == 'bad' %}" + BAD[bad].replace("'!' in", "") + "{% endif %}"
    )
    made = renderer(guarded + tiny.CHATML)
    good, failed, after = made.encode_all(
        [
            (USER, "Paris.", "row 0"),
            ([{"role": "user", "content": "bad"}], "Paris.", "row 1"),
            (USER, "Paris.", "row 2"),
        ]
    )
    assert good == after == renderer(tiny.CHATML).encode(USER, "Paris.", "row 0")
    assert isinstance(failed, TemplateError)
    assert str(failed).startswith("row 1: the chat template refuses") and "\n" not in str(failed)


def test_a_template_that_fails_on_the_finished_conversation_alone_is_noted() -> None:
    template = "{% if messages[-1].content == 'bad' %}{{ 1 / 0 }}{% endif %}" + tiny.CHATML
    assert REWRITTEN in renderer(template).encode(USER, "bad", "row 0").notes


def test_long_conversations_are_within_the_bounds() -> None:
    turns = [*USER, {"role": "assistant", "content": "x" * 2000}] * 1000
    rendered = BoundedTemplate(tiny.CHATML, DEFAULT_DATE).render({"messages": turns})
    assert len(rendered) > 2_000_000


CONVERSATIONS = [
    [*USER],
    [*USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nParis."}, *USER],
    [{"role": "user", "content": "  é 你\n", "name": "n", "number": 3, "list": [1, {"a": None}]}],
    [{"role": "user", "content": "a", "reasoning": "b"}],
]
RICH = (
    "{%- set ns = namespace(n=0, x='') -%}{% for m in messages recursive %}{% if loop.first %}"
    "first{% endif %}{% set ns.n = ns.n + loop.index * 2 %}{% set ns.x = ns.x ~ m.role ~ ns.n %}\n"
    "{{ m | tojson }}{{ m.items() | list }}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{{ '%s-%d' % (m.role, ns.n) }}{{ '{:>8}|'.format(m.role) }}{{ [m.role, 'x'] | join(', ') }}"
    "{% if loop.last %}last {{ loop.length }}{% endif %}{% generation %}g{% endgeneration %}"
    "{{ m.thinking }}{{ (1, 2) }}{{ {'a': [ns.n]} }}{{ 'x' * 3 }}{{ [1] + [2] }}"
    "{% for i in range(5) if i % 2 %}{{ i }}{% if i > 2 %}{% break %}{% endif %}{% else %}none"
    "{% endfor %}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}\n   "
    "{% endfor %}{{ ns.x | upper | replace('U', 'v') | indent(2) }}{{ bos_token }}{{ missing }}"
    "{{ tools is none }}{{ 7 / 2 }}{{ 2 ** 10 }}"
    "{{ messages[::-1] | map(attribute='role') | first }}\n"
)


@pytest.mark.parametrize("template", [*tiny.TEMPLATES.values(), tiny.CHANNELS, RICH])
@pytest.mark.parametrize("prompt", [True, False])
def test_the_bounds_change_nothing_that_transformers_renders(template: str, prompt: bool) -> None:
    tokenizer = tiny.tokenizer("bytes")
    bounded = BoundedTemplate(template, DEFAULT_DATE)
    conversations = CONVERSATIONS
    if not hasattr(chat_template_utils, "_alias_reasoning_fields"):  # an older transformers
        conversations = [c for c in CONVERSATIONS if "reasoning" not in c[0]]
    for messages in conversations:
        expected = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
        context = {
            "messages": [_plain(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": prompt,
            **tokenizer.special_tokens_map,
        }
        assert bounded.render(context) == expected


def test_the_date_is_the_same_every_day_unless_asked_for() -> None:
    tokenizer = tiny.tokenizer("bytes")
    usual = renderer(DATED).encode(USER, "Paris.", "row 0")
    assert "26 Jul 2024 00:00" in tokenizer.decode(usual.prompt_ids)
    assert any("told 2024-07-26" in note for note in usual.notes)
    other = renderer(DATED, template_date=datetime.date(1999, 1, 2)).encode(USER, "Paris.", "")
    assert "02 Jan 1999" in tokenizer.decode(other.prompt_ids)
    assert renderer(tiny.CHATML).template_date is None


def test_the_date_is_an_option_and_counts_where_it_is_written(
    tmp_path: Path, strong: str, weak: str
) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ strftime_now('%Y') }}" + tiny.CHATML, encoding="utf-8")
    dates = [{}, {"template_date": "2024-07-26"}, {"template_date": "2031-01-01"}]
    usual, same, other = (DrSoW(strong, weak, strong_template=str(file), **d) for d in dates)
    assert usual.fingerprint == same.fingerprint != other.fingerprint
    assert other.describe()["strong"]["template_date"] == "2031-01-01"
    assert other.describe()["weak"]["template_date"] is None
    today = DrSoW(strong, weak, strong_template=str(file), template_date="today")
    pinned = today.pinned_config.strong.template_date
    assert pinned == today.describe()["strong"]["template_date"]
    assert datetime.date.fromisoformat(str(pinned)) > DEFAULT_DATE
    plain = (DrSoW(strong, weak, **d) for d in dates)
    assert len({pair.fingerprint for pair in plain}) == 1
    for date in ("tomorrow", "2024-13-01", 5):
        with pytest.raises(ConfigError, match="strong_template_date is a date such as"):
            DrSoW(strong, weak, strong_template_date=date)


def test_sides_that_differ_in_their_arguments_or_date_are_two_models(
    tmp_path: Path, strong: str
) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ mood }}{{ strftime_now('%Y') }}" + tiny.CHATML, encoding="utf-8")
    for name, ours, theirs in (
        ("template_args", {"mood": "good"}, {"mood": "bad"}),
        ("template_date", "2024-01-01", "2025-01-01"),
    ):
        options = {f"strong_{name}": ours, f"weak_{name}": theirs}
        reward = DrSoW(strong, strong, template=str(file), **options).score(["Q?"], ["A."])[0]
        assert reward.reward != 0
