"""The launch files: the same processes as `up`, by the official launch where it is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('launch_ros', reason='needs launch_ros (not on PyPI; comes with ROS 2)')
pytest.importorskip('launch_testing', reason='needs launch_testing')

from launch import LaunchContext
from launch.actions import ExecuteProcess, IncludeLaunchDescription, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource

from pruned_perception.environment import add_own_prefix
from pruned_perception.nodes import processes
from pruned_perception.nodes.processes import SETS

ROOT = Path(__file__).resolve().parents[2]
# An environment that has the package installed: the launch files look for each other in share/.
add_own_prefix()
INSTALLED = any(
    Path(prefix, 'share/pruned_perception/launch').is_dir()
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
)
pytestmark = pytest.mark.skipif(not INSTALLED, reason='needs the package installed')


def processes_of(name: str, given: dict[str, str]) -> tuple[list[ExecuteProcess], LaunchContext]:
    """Return the processes that a launch file would start, without starting them."""
    context = LaunchContext(argv=[])
    pending: list[Any] = [
        *(SetLaunchConfiguration(key, value) for key, value in given.items()),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{name}.launch.py')),
            launch_arguments=list(given.items()),
        ),
    ]
    found = []
    while pending:
        entity = pending.pop(0)
        if isinstance(entity, ExecuteProcess):
            entity.prepare(context)
            if hasattr(entity, '_perform_substitutions'):
                entity._perform_substitutions(context)
            found.append(entity)
        else:
            pending = [*(entity.visit(context) or ()), *pending]
    return found, context


def command_of(process: ExecuteProcess, context: LaunchContext) -> list[str]:
    """Return the words that a process would be started with."""
    from launch.utilities import perform_substitutions

    return [perform_substitutions(context, list(word)) for word in process.cmd]


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
        elif word == '--log-level':
            meant['log_level'] = next(rest)
        elif word != '--ros-args':
            meant['words'].append(word)
    return meant


GIVEN: list[dict[str, str]] = [
    {},
    {'namespace': 'front', 'model': 'package://a/b', 'member': '10', 'log_level': 'debug'},
    {'autostart': 'false', 'use_sim_time': 'true', 'respawn': 'true', 'namespace': '/a/b'},
    {'discovery_range': 'localhost', 'params_file': str(ROOT / 'config' / 'perception.yaml')},
]
ONLY = {
    'perception': {'image': '/camera/image', 'image_transport': 'compressed'},
    'simulation': {'scene_seed': '7', 'rate_hz': '30'},
}


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize('common', GIVEN, ids=lambda given: ','.join(given) or 'nothing')
def test_launch_starts_what_up_starts(name: str, common: dict[str, str]) -> None:
    given = {**common, **(ONLY[name] if common else {})}
    chosen = SETS[name]
    values = chosen.values(given)
    expected = {
        process.executable: meaning(processes.arguments_of(process, chosen, values))
        for process in chosen.processes
    }
    started, context = processes_of(name, given)
    actual = {}
    for process in started:
        executable, *arguments = command_of(process, context)
        actual[Path(executable).name] = meaning(arguments)
        environment = {
            ''.join(part.perform(context) for part in key): ''.join(
                part.perform(context) for part in value
            )
            for key, value in process.process_description.additional_env or ()
        }
        assert environment == processes.environment(values)
    assert actual == expected


@pytest.mark.parametrize('name', SETS)
def test_arguments_and_descriptions_are_those_of_up(name: str) -> None:
    source = PythonLaunchDescriptionSource(str(ROOT / 'launch' / f'{name}.launch.py'))
    description = source.get_launch_description(LaunchContext(argv=[]))
    declared = {}
    for argument in description.get_launch_arguments():
        default = ''.join(part.perform(LaunchContext()) for part in argument.default_value or ())
        declared.setdefault(argument.name, (argument.description, default))
    expected = {each.name: (each.text, each.default) for each in SETS[name].arguments}
    assert {key: declared[key] for key in expected} == expected
