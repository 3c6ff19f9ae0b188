"""The launch files: the same processes as `up`, by the official launch where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('launch_ros', reason='needs launch_ros (not on PyPI; comes with ROS 2)')
pytest.importorskip('launch_testing', reason='needs launch_testing')

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, ExecuteLocal, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions

from pruned_perception.environment import add_own_prefix
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


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], list[Started]]:
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

    def launch(name: str, given: dict[str, str]) -> list[Started]:
        context = LaunchContext(argv=[])
        source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{name}.launch.py'))
        pending: list[Any] = [IncludeLaunchDescription(source, launch_arguments=given.items())]
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
    {'active_member': 'half', 'latency_budget_ms': '30'},
    {'enclave': '/front/perception_node', 'use_sim_time': 'true'},
    {'discovery_range': 'localhost', 'params_file': str(ROOT / 'config' / 'perception.yaml')},
]
ONLY = {
    'perception': {'image': '/camera/image', 'image_transport': 'compressed'},
    'simulation': {'scene_seed': '7', 'rate_hz': '30'},
}


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize('common', GIVEN, ids=lambda given: ','.join(given) or 'nothing')
def test_launch_starts_what_up_starts(launch: Any, name: str, common: dict[str, str]) -> None:
    given = {**common, **(ONLY[name] if common else {})}
    chosen = SETS[name]
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
