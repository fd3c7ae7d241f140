"""Templates are foreign code: whatever they do ends in one line within seconds."""

from __future__ import annotations

import datetime
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2.sandbox
import pytest

from antiimit_jax.text.chat_templates import render
from antiimit_jax.text.limited_process import LimitedProcess
from tests.models.refusals import refused
from tests.text.ranks import data_of

MESSAGES = [{"role": "user", "content": "hi"}]
OPTIONS = dict(add_generation_prompt=True, continue_final_message=False)
NESTED = "{% for a in range(99999) %}" * 4 + "{{ a }}" + "{% endfor %}" * 4
ADDRESSES = [
    "raise_exception",
    "(''.upper | string)[-9:-1]",
    "strftime_now | string | length",
    "cycler(1, 2).next | string",
    "joiner() ~ ''",
    "self.part | replace('0x', '')",
    "[[''.upper]] | string",
    "{'a': ''.upper}.items() | list | string",
    "namespace(f=''.upper) | upper",
    "'%s' % ''.upper",
    "'%r' | format([''.upper])",
    "'{!r:>99}'.format(''.upper)",
    "'{a}'.format_map({'a': messages.copy})",
    "('' | safe).join([''.upper])",
    "('' | safe).escape(''.upper)",
    "messages | map(attribute='x')",
    "messages | map(attribute='get') | join",
    "messages | map('attr', 'get') | first | e",
    "[1, 2] | reverse",
    "('a' | batch(1), 0)",
    "absent | default(''.upper) | center",
]
HOSTILE = {
    "loops for hours": (NESTED, "memory"),  # or too long, on a slow machine
    "loops without output": (NESTED.replace("{{ a }}", ""), "stopped"),
    "one endless step": ("{{ 9 ** (9 ** 9) }}", "stopped"),
    "grows by doubling": (
        "{% set ns = namespace(t='x') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}"
        "{% endfor %}{{ ns.t }}",
        "memory",
    ),
    "a huge string": ("{{ 'x' * 99999999999 }}", "memory"),
    "a wide field": ("{{ '%99999999999d' % 1 }}", "template"),
    "a long output": ("{{ 'x' * 9999999 }}", "9999999 characters"),
    "calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "template"),
    "attributes": ("{{ ''.__class__.__base__.__subclasses__() }}", "unsafe"),
    "the globals of a function": ("{{ raise_exception.__globals__['os'] }}", "unsafe"),
    "through a format": ("{{ '{0.__class__.__init__.__globals__}'.format(dict) }}", "unsafe"),
    "no template at all": ("{% for %}", "template"),
    "chance": ("{{ [1, 2] | random }}", "random"),
    "chance in words": ("{{ lipsum() }}", "lipsum"),
    "order by addresses": ("{{ {(1, 'a'): 1, ('a', 1): 2} | pprint }}", "pprint"),
}


@pytest.fixture(scope="module")
def process() -> Iterator[LimitedProcess]:
    """One for these templates alone."""
    process = LimitedProcess()
    yield process
    process.stop()


def processor_time(process: LimitedProcess) -> float:
    """Seconds of this process' children that have ended, and of that one where it goes on."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    if process._child is not None:
        stat = Path(f"/proc/{process._child.pid}/stat").read_text()
        ticks = stat.rpartition(")")[2].split()[11:13]  # utime and stime, proc(5)
        seconds += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return seconds


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_one_line_within_five_seconds(name, process):
    template, says = HOSTILE[name]
    render("{{ 1 }}", MESSAGES, process=process, **OPTIONS)  # the process is there
    before = processor_time(process)  # the clock would count other programs too
    with refused("chat template", says):
        render(template, MESSAGES, process=process, **OPTIONS)
    assert processor_time(process) - before < 5
    text = render("{{ messages[0].content }}!", MESSAGES, process=process, **OPTIONS)
    assert text == "hi!"


@pytest.mark.parametrize("written", ADDRESSES)
def test_where_an_object_lies_is_never_written(written):
    with refused("chat template", "where in memory"):
        render(f"{{% block part %}}{{% endblock %}}{{{{ {written} }}}}", MESSAGES, **OPTIONS)


ALIKE = """
{%- block part %}in {{ self }}{% endblock %}
{%- set upper, letters = 'abc'.upper, 'abc' | map('upper') %}{{ upper() }}
{%- for letter in letters %}{{ loop.cycle('-', '+') }}{{ letter }}{% endfor %}{{ letters | list }}
{%- set turn, comma = cycler('x', 'y'), joiner('/') %}{{ turn.next() }}{{ turn.current }}
{{- comma() }}{%- set kept = namespace(f=upper, n=0) %}{% set kept.n = 1 %}{{ kept.n }}
{%- macro twice(x) %}{{ x }}{{ x }}{{ caller() }}{% endmacro %}
{%- call twice(messages[0].get('content')) %}{{ twice }}{% endcall %}
{%- for key, value in messages[0].items() | reverse %}{{ key }}{{ value }}{{ loop }}{% endfor %}
{{- messages[0].items() }}{{ messages | groupby('role') }}{{ range(3) }}{{ dict(a=1).keys() }}
{{- upper is callable }}{{ 'a' is callable }}{{ letters is iterable }}{{ upper is iterable }}
{{- raise_exception is defined }}{{ absent is defined }}{{ absent }}{{ none }}{{ 1e3 }}
{{- '%s {0.n} {1[0]}'.format(kept, 'ab') % 3 }}{{ [3, 1] | sort | map('string') | join(', ') }}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}
"""


def test_what_tells_no_address_is_written_as_jinja_writes_it():
    """Functions and iterators may be called, gone through and tested."""
    plain = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.globals["raise_exception"] = None
    expected = plain.from_string(ALIKE).render(messages=MESSAGES)
    assert len(expected) > 200
    assert render(ALIKE, MESSAGES, **OPTIONS) == expected


def test_a_template_can_touch_no_file(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for template in ("{% include 'secret.txt' %}", "{{ open('secret.txt').read() }}"):
        with refused("chat template"):
            render(template, MESSAGES, **OPTIONS)


def test_the_date_is_all_the_time_that_a_template_sees():
    template = "{{ strftime_now('%d %B %Y %H:%M:%S.%f %s') }}"
    process = LimitedProcess()
    for date, seconds in (("2026-01-01", 1767225600), ("1999-12-31", 946598400)):
        expected = datetime.date.fromisoformat(date).strftime("%d %B %Y 00:00:00.000000 ")
        for _ in range(2):
            text = render(template, MESSAGES, date=date, process=process, **OPTIONS)
            assert text == f"{expected}{seconds}"
    process.stop()


RELEASED = {  # all that these templates say of dates, on 6 July 2024
    "llama3_1": ["December 2023", "06 Jul 2024"],
    "llama3_2": ["December 2023", "06 Jul 2024"],
    "gptoss": ["2024-06", "2024-07-06"],
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_templates_write_the_date_given_and_no_other(name):
    template = data_of("trl", f"chat_templates/{name}.jinja").read_text("utf-8")
    text = render(template, MESSAGES, date="2024-07-06", bos_token="<s>", **OPTIONS)
    assert re.findall(r"[\d-]{4,}|(?:\d+ )?[A-Z][a-z]{2,} \d{4}", text) == RELEASED[name]


def test_a_process_that_died_is_started_again():
    process = LimitedProcess()
    assert render("{{ 1 }}", MESSAGES, process=process, **OPTIONS) == "1"
    process._child.kill()
    process._child.wait()
    assert render("{{ 2 }}", MESSAGES, process=process, **OPTIONS) == "2"
    process.stop()


def test_texts_pass_as_they_are():
    for text in ("naïve 東京 🙂", "a\u2028b\r\n\x00\x7f", "{{ 1 }}", "\ud800"):
        messages = [{"role": "user", "content": text}]
        template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
        expected = jinja2.Template(template, keep_trailing_newline=False).render(
            messages=messages, bos_token="<s>"
        )
        assert render(template, messages, bos_token="<s>", **OPTIONS) == expected


def test_the_process_ends_with_the_program():
    program = (
        "from antiimit_jax.text.chat_templates import render\n"
        "from antiimit_jax.text.limited_process import PROCESS\n"
        "render('{{ 1 }}', [{'role': 'user', 'content': ''}], add_generation_prompt=True)\n"
        "print(PROCESS._child.pid, flush=True)\nimport os; os._exit(0)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", program], stdout=-1, check=True).stdout)
    for _ in range(50):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                if "limited_child" not in file.read():
                    return
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the process is still there")
