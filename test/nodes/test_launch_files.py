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

"""The launch files: the same processes as `up`, by the official launch where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('launch_ros', reason='needs launch_ros (not on PyPI; comes with ROS 2)')
pytest.importorskip('launch_testing', reason='needs launch_testing')

from launch import LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteLocal,
    IncludeLaunchDescription,
    SetLaunchConfiguration,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions
from launch_ros.actions import PushRosNamespace
from launch_ros.substitutions import ExecutableInPackage

from pruned_perception.environment import add_own_prefix
from pruned_perception.errors import UserError
from pruned_perception.nodes import up
from pruned_perception.nodes.up import SETS

ROOT = Path(__file__).resolve().parents[2]
# An environment that has the package installed: the launch files look for each other in share/.
add_own_prefix()
INSTALLED = any(
    Path(prefix, 'share/pruned_perception/launch').is_dir()
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
)
pytestmark = pytest.mark.skipif(not INSTALLED, reason='needs the package installed')


@dataclass(frozen=True)
class Started:
    """What launch would have started."""

    command: list[str]
    environment: dict[str, str]


def _is_ours(command: Sequence[str]) -> bool:
    return Path(command[0]).name == 'perception_node'


def _only_ours(find: Any) -> Any:
    def perform(self: Any, context: LaunchContext) -> str:
        package = perform_substitutions(context, list(self.package))
        return str(find(self, context)) if package == 'pruned_perception' else f'/{package}'

    return perform


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Started]]:
    """Return a function that runs a launch file to the point where processes would start."""
    started: list[Started] = []

    def execute(action: ExecuteLocal, context: LaunchContext) -> None:
        action.prepare(context)
        description = action.process_description
        environment = {
            perform_substitutions(context, list(key)): perform_substitutions(context, list(value))
            for key, value in description.additional_env or ()
        }
        started.append(Started(description.final_cmd, environment))

    monkeypatch.setattr(ExecuteLocal, 'execute', execute)

    def launch(
        name: str | Path, given: dict[str, str], around: Sequence[Any] = ()
    ) -> list[Started]:
        context = LaunchContext(argv=[])
        path = name if isinstance(name, Path) else ROOT / 'launch' / f'{name}.launch.py'
        source = PythonLaunchDescriptionSource(str(path))
        include = IncludeLaunchDescription(source, launch_arguments=given.items())
        pending: list[Any] = [*around, include]
        while pending:
            pending = [*(pending.pop(0).visit(context) or ()), *pending]
        return started

    return launch


def meaning(arguments: list[str]) -> dict[str, Any]:
    """Return what the words after an executable say, however they say it."""
    meant: dict[str, Any] = {'words': [], 'remappings': set(), 'parameters': {}, 'files': []}
    rest = iter(arguments)
    for word in rest:
        if word in ('-r', '--remap'):
            meant['remappings'].add(next(rest))
        elif word in ('-p', '--param'):
            name, _, value = next(rest).partition(':=')
            meant['parameters'][name] = yaml.safe_load(value)
        elif word == '--params-file':
            path = next(rest)
            if 'launch_params' in Path(path).name:  # launch's way to pass a parameter
                for section in yaml.safe_load(Path(path).read_text()).values():
                    meant['parameters'].update(section['ros__parameters'])
            else:
                meant['files'].append(path)
        elif word == '--enclave':
            meant['enclave'] = next(rest)
        elif word == '--log-level':
            meant['log_level'] = next(rest)
        elif word != '--ros-args':
            meant['words'].append(word)
    return meant


GIVEN: list[dict[str, str]] = [
    {},
    {'namespace': 'front', 'model': 'package://a/b', 'member': '10', 'log_level': 'debug'},
    {'autostart': 'false', 'use_sim_time': 'true', 'respawn': 'true', 'namespace': '/a/b'},
    {'active_member': 'half', 'latency_budget_ms': '30', 'execution_provider': 'cuda, cpu'},
    {'enclave': '/front/perception_node', 'use_sim_time': 'true'},
    {'autostart': 'True', 'use_sim_time': '1', 'log_level': 'INFO', 'node_name': 'left'},
    {'discovery_range': 'LOCALHOST', 'use_respawn': 'True', 'image_transport': 'Compressed'},
    {'discovery_range': 'localhost', 'params_file': str(ROOT / 'config' / 'perception.yaml')},
]
ONLY = {
    'perception': {'image': '/camera/image', 'image_transport': 'compressed'},
    'simulation': {'scene_seed': '7', 'rate_hz': '30'},
}


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize('common', GIVEN, ids=lambda given: ','.join(given) or 'nothing')
def test_launch_starts_what_up_starts(launch: Any, name: str, common: dict[str, str]) -> None:
    chosen = SETS[name]
    given = {**(ONLY[name] if common else {}), **common}
    given = {key: value for key, value in given.items() if key in chosen.values({})}
    values = chosen.values(given)
    expected = {
        process.executable: meaning(up.arguments_of(process, chosen, values))
        for process in chosen.processes
    }
    actual = {}
    for started in launch(name, given):
        executable, *arguments = started.command
        actual[Path(executable).name] = meaning(arguments)
        assert started.environment == up.environment(values)
    assert actual == expected


@pytest.mark.parametrize('name', SETS)
def test_names_texts_defaults_and_choices_of_arguments_are_those_of_up(name: str) -> None:
    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{name}.launch.py'))
    description = source.get_launch_description(LaunchContext(argv=[]))
    declared = {
        argument.name: (
            argument.description.partition(' Valid choices are: ')[0],  # launch adds these
            perform_substitutions(LaunchContext(), argument.default_value),
            tuple(argument.choices or ()),
        )
        for argument in description.entities
        if isinstance(argument, DeclareLaunchArgument)
    }
    expected = {each.name: (each.text, each.default, each.choices) for each in SETS[name].arguments}
    assert list(declared.items()) == list(expected.items())


def test_a_value_that_is_no_choice_is_refused(launch: Any) -> None:
    with pytest.raises(RuntimeError, match=r'image_transport.*theora.*compressed'):
        launch('perception', {'image_transport': 'theora'})
    with pytest.raises(RuntimeError, match=r'autostart.*maybe.*true.*false'):
        launch('perception', {'autostart': 'maybe'})
    with pytest.raises(
        UserError, match=r'no family of that name is shipped; there are .*warehouse'
    ):
        launch('perception', {'model': 'warehose'})


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize(
    ('pushed', 'expected'),
    [('front', '/front'), ('robot/front', '/robot/front'), ('a', '/a/front')],
)
def test_a_namespace_that_is_inherited_within_a_pushed_one_is_not_doubled(
    launch: Any, name: str, pushed: str, expected: str
) -> None:
    """As `GroupAction([PushRosNamespace(namespace), IncludeLaunchDescription(…)])` does it."""
    nodes = launch(name, {'namespace': 'front'}, around=[PushRosNamespace(pushed)])
    spaces = {word for each in nodes for word in each.command if word.startswith('__ns:=')}
    assert spaces == {f'__ns:={expected}'}


def test_arguments_of_the_file_around_are_inherited(launch: Any) -> None:
    around = [
        SetLaunchConfiguration(name, value)
        for name, value in {
            'namespace': 'robot',
            'use_sim_time': 'True',
            'autostart': 'True',
            'use_respawn': 'False',
            'log_level': 'INFO',
        }.items()
    ]
    [started] = launch('perception', {}, around=[*around, PushRosNamespace('robot')])
    meant = meaning(started.command[1:])
    assert '__ns:=/robot' in meant['remappings']
    assert meant['parameters'] == {'use_sim_time': True, 'autostart': True}
    assert meant['log_level'] == 'info'


@pytest.mark.parametrize('path', sorted((ROOT / 'examples').glob('*.launch.py')), ids=str)
def test_examples_start_our_node(launch: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside nodes of packages that are not here."""
    monkeypatch.setattr(ExecutableInPackage, 'perform', _only_ours(ExecutableInPackage.perform))
    started = launch(path, {'namespace': 'front'})
    assert any('__ns:=/front' in each.command for each in started if _is_ours(each.command))
