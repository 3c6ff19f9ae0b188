# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""Each `pruned-perception` command of README and docs is one: options exist, values fit."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from pruned_perception.cli.arguments import Parser
from pruned_perception.cli.benchmark import BENCHMARKS
from pruned_perception.cli.main import SUBCOMMANDS, build_parser
from pruned_perception.nodes import up
from pruned_perception.nodes.up import SETS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
COMMAND = 'pruned-perception '
# `./dev demo` passes its arguments on.
DEV = {'demo': 'demo', 'models': 'models'}


def commands(page: Path) -> list[str]:
    """Return the commands of a page: in blocks of code, and in the text where they are whole."""
    text = page.read_text(encoding='utf-8')
    found = []
    for block in re.findall(r'^```\w*\n(.*?)^```$', text, re.M | re.S):
        lines = re.sub(r'\\\n\s*', ' ', block).splitlines()
        found += [line.strip() for line in lines if line.strip().startswith((COMMAND, './dev '))]
    inline = re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)
    spans = re.findall(r'`((?:pruned-perception|\./dev) [^`…][^`]*)`', inline)
    return found + [' '.join(span.split()) for span in spans]


def words_of(line: str) -> list[str]:
    """Return the words, without comments, redirections and what stands for something else."""
    line, _, _ = line.partition('    ')  # of a list of commands: what each is for
    words = shlex.split(line, comments=True)
    cut = next((k for k, word in enumerate(words) if word in ('>', '|', '&&', ';', '&')), None)
    return [each.strip('[]') for each in words[:cut]]


CASES = [
    pytest.param(line, id=f'{page.name}: {line[:70]}') for page in PAGES for line in commands(page)
]


@pytest.mark.parametrize('line', CASES)
def test_it_is_a_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, name, *rest = words_of(line)
    if program == './dev':
        assert re.search(rf'^  {name}(?: |\))', (ROOT / 'dev').read_text(), re.M), name
        if name not in DEV:
            return
        name = DEV[name]
    assert name in SUBCOMMANDS
    if any('…' in word for word in rest) or not rest:
        return  # named, not spelled out
    try:
        args = build_parser(name).parse_args([name, *rest])
    except SystemExit as end:
        # What is named in the text may leave out what is needed, but nothing may be wrong.
        said = capsys.readouterr().err
        assert end.code == 0 or 'are required' in said, said
        return
    if name == 'benchmark':
        assert args.name in BENCHMARKS
        _parse_benchmark(args, capsys)
    if name == 'up':
        SETS[args.set].values(up.parse_assignments(args.assignments))


def _parse_benchmark(args: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f'pruned_perception.cli.benchmark_{args.name}')
    parser = Parser(prog=args.name)
    module.add_arguments(parser)
    try:
        parser.parse_args(args.rest)
    except SystemExit as end:
        said = capsys.readouterr().err
        assert end.code == 0 or 'are required' in said, said


def test_there_are_commands_on_the_pages_that_must_have_some() -> None:
    for name in ('README.md', 'start.md', 'bundle.md', 'optimize.md', 'benchmark.md'):
        page = next(page for page in PAGES if page.name == name)
        assert len(commands(page)) >= 2, name
