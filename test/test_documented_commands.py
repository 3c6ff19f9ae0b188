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


"""Each command of README and docs is one, and runs: as it is written, or shortened.

What needs what a test has not is listed in `documented_commands`, with the reason. All steps, not
only the quick ones, run with PRUNED_PERCEPTION_COMMANDS=1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documented_commands import (
    ELSEWHERE,
    OVER_DDS,
    PAGES,
    ROADS,
    ROOT,
    TESTED,
    Step,
    command_lines,
    reason,
)

from pruned_perception.cli.arguments import Parser
from pruned_perception.cli.benchmark import BENCHMARKS
from pruned_perception.cli.main import SUBCOMMANDS, build_parser, main
from pruned_perception.nodes import up
from pruned_perception.nodes.up import SETS

# `./dev demo` passes its arguments on.
DEV = {'demo': 'demo', 'models': 'models'}


def commands(page: Path) -> list[str]:
    """Return the commands of a page: in blocks of code, and in the text where they are whole."""
    found = [
        line for line in command_lines(page) if line.startswith(('pruned-perception', './dev'))
    ]
    inline = re.sub(r'^```.*?^```$', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
    spans = re.findall(r'`((?:pruned-perception|\./dev) [^`…][^`]*)`', inline)
    return found + [' '.join(span.split()) for span in spans]


def words_of(line: str) -> list[str]:
    """Return the words, without comments, redirections and what stands for something else."""
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


# --- They run -------------------------------------------------------------------------------------

STEPS = {step.line for road in ROADS.values() for step in road}
LONG = bool(os.environ.get('PRUNED_PERCEPTION_COMMANDS'))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_each_is_run_or_it_is_said_why_not(page: Path) -> None:
    unknown = [line for line in command_lines(page) if line not in STEPS and reason(line) is None]
    assert not unknown, 'make them steps of a road in documented_commands.py, or say why not'


def test_nothing_is_listed_that_no_page_says() -> None:
    documented = {line for page in PAGES for line in command_lines(page)}
    assert documented >= STEPS
    for part, test in TESTED.items():
        assert (ROOT / test).exists()
        assert any(part in line for line in documented), part
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, line) for line in documented), pattern


@pytest.mark.parametrize('road', [road for road in ROADS if road not in OVER_DDS])
def test_the_commands_of_a_road_run(
    road: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = [step for step in ROADS[road] if LONG or not step.long]
    if not steps:
        pytest.skip('long: PRUNED_PERCEPTION_COMMANDS=1')
    pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
    from documented_inputs import PREPARED, ultralytics

    PREPARED[road](tmp_path)
    monkeypatch.setitem(sys.modules, 'ultralytics', ultralytics())
    monkeypatch.delitem(sys.modules, 'yolo_task', raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    for step in steps:
        status = run(step, tmp_path)
        said = capfd.readouterr()
        assert status == step.status, (
            f'{step.line} {step.add}\n{said.out[-500:]}\n{said.err[-1500:]}'
        )


def run(step: Step, folder: Path) -> int:
    """Run a command here: ours without another process, others by a shell."""
    words = shlex.split(f'{step.line} {step.add}')
    if words[0] != 'pruned-perception':
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        environment['PATH'] = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ['PATH']]
        )
        return subprocess.run(
            f'{step.line} {step.add}', shell=True, cwd=folder, env=environment, check=False
        ).returncode
    return main([str(Path(word).expanduser()) if word[0] == '~' else word for word in words[1:]])
