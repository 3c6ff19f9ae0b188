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

"""Sets of processes as data: arguments, refusals, command lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pruned_perception.errors import UserError
from pruned_perception.nodes import parameters, up
from pruned_perception.nodes.up import (
    PERCEPTION,
    SETS,
    SIMULATION,
    Process,
    ProcessSet,
    check_model,
)

TABLES = {
    'perception_node': parameters.PERCEPTION_PARAMETERS,
    'simulated_robot': parameters.ROBOT_PARAMETERS,
}


def words(chosen: ProcessSet, executable: str, **given: str) -> list[str]:
    process = next(each for each in chosen.processes if each.executable == executable)
    return up.arguments_of(process, chosen, chosen.values(given))


def pairs(arguments: list[str], option: str) -> list[str]:
    return [b for a, b in itertools.pairwise(arguments) if a == option]


@pytest.mark.parametrize('chosen', SETS.values(), ids=SETS)
def test_every_argument_is_described_and_its_default_is_possible(chosen: ProcessSet) -> None:
    for argument in chosen.arguments:
        assert argument.text.endswith('.') or argument.text.endswith(').'), argument.name
        if argument.default:
            argument.parse(argument.default)


@pytest.mark.parametrize('chosen', SETS.values(), ids=SETS)
def test_every_parameter_that_is_passed_exists_in_its_node_with_that_type(
    chosen: ProcessSet,
) -> None:
    arguments = {argument.name: argument for argument in chosen.arguments}
    for process in chosen.processes:
        rows = {row.name: row for row in TABLES.get(process.executable, ())}
        for name in process.parameters:
            if name == 'use_sim_time':  # every node's own
                continue
            assert type(rows[name].default) is arguments[name].type, name
            if arguments[name].type is str and rows[name].choices:
                assert set(rows[name].choices) == set(arguments[name].choices) - {''}


def test_what_is_not_given_is_not_passed() -> None:
    assert words(PERCEPTION, 'perception_node') == [
        *('--ros-args', '-r', '__node:=perception_node', '-r', '__ns:=/')
    ]


def test_every_argument_reaches_the_command_line(tmp_path: Path) -> None:
    params_file = tmp_path / 'my parameters.yaml'
    params_file.touch()
    arguments = words(
        PERCEPTION,
        'perception_node',
        model='package://a/b',
        member='small',
        image='/camera/image_raw',
        image_transport='compressed',
        namespace='front',
        enclave='/front/camera',
        params_file=str(params_file),
        autostart='false',
        use_sim_time='true',
        log_level='debug',
    )
    assert pairs(arguments, '-r') == [
        '__node:=perception_node',
        '__ns:=/front',
        'image_raw:=/camera/image_raw',
    ]
    assert pairs(arguments, '-p') == [
        'model:="package://a/b"',
        'member:="small"',
        'image_transport:="compressed"',
        'autostart:=false',
        'use_sim_time:=true',
    ]
    assert pairs(arguments, '--params-file') == [str(params_file)]
    assert pairs(arguments, '--log-level') == ['debug']
    assert pairs(arguments, '--enclave') == ['/front/camera']


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (
            {'autostart': 'True', 'use_sim_time': 'FALSE'},
            ['autostart:=true', 'use_sim_time:=false'],
        ),
        ({'autostart': '0', 'use_sim_time': 'on'}, ['autostart:=false', 'use_sim_time:=true']),
        ({'image_transport': 'Compressed'}, ['image_transport:="compressed"']),
    ],
)
def test_choices_are_taken_in_any_case(given: dict[str, str], expected: list[str]) -> None:
    assert pairs(words(PERCEPTION, 'perception_node', **given), '-p') == expected


def test_environment_and_log_level_are_taken_in_any_case() -> None:
    values = PERCEPTION.values({'discovery_range': 'LOCALHOST', 'log_level': 'INFO'})
    assert up.environment(values)['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert pairs(words(PERCEPTION, 'perception_node', log_level='INFO'), '--log-level') == ['info']


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, False),
        ({'respawn': 'True'}, True),
        ({'use_respawn': 'True'}, True),
        ({'use_respawn': 'true', 'respawn': 'false'}, False),
    ],
)
def test_respawn_has_nav2s_name_too(given: dict[str, str], expected: bool) -> None:
    assert up.respawns(PERCEPTION.values(given)) is expected


@pytest.mark.parametrize('chosen', SETS.values(), ids=SETS)
def test_the_node_can_be_renamed(chosen: ProcessSet) -> None:
    assert '__node:=left' in words(chosen, 'perception_node', node_name='left')


@pytest.mark.parametrize(
    ('pushed', 'given', 'expected'),
    [
        ('', 'front', 'front'),
        ('', '', ''),
        ('/front', '', ''),
        ('/front', 'front', ''),
        ('/robot/front', 'front', ''),
        ('/robot/front', 'robot', ''),
        ('/robot/front', 'robot/front/', ''),
        ('/robot', 'front', 'front'),
        ('/frontal', 'front', 'front'),
        ('/front', '/front', '/front'),
        ('/robot', '/front', '/front'),
    ],
)
def test_a_namespace_that_is_pushed_already_is_not_doubled(
    pushed: str, given: str, expected: str
) -> None:
    assert up.namespace_within(pushed, given) == expected


def test_texts_that_look_like_numbers_stay_texts() -> None:
    assert 'member:="10"' in words(PERCEPTION, 'perception_node', member='10')
    assert 'rate_hz:=30.0' in words(SIMULATION, 'simulated_robot', rate_hz='30')


def test_the_monitor_takes_the_time_that_the_nodes_take() -> None:
    assert '--use-sim-time' in words(SIMULATION, 'pruned-perception', use_sim_time='true')
    assert '--use-sim-time' not in words(SIMULATION, 'pruned-perception', use_sim_time='false')


@pytest.mark.parametrize('executable', [each.executable for each in SIMULATION.processes])
def test_every_process_is_in_the_enclave(executable: str) -> None:
    assert pairs(words(SIMULATION, executable, enclave='/sim'), '--enclave') == ['/sim']
    assert '--enclave' not in words(SIMULATION, executable)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({'modell': 'x'}, "no argument 'modell'; it has model, member, active_member"),
        ({'image_transport': 'theora'}, 'image_transport:=theora is none of raw, compressed'),
        ({'autostart': 'maybe'}, 'autostart:=maybe is none of true, false'),
        ({'params_file': '/nowhere.yaml'}, 'params_file:=/nowhere.yaml: there is no such file'),
    ],
)
def test_bad_arguments_are_refused_by_name(given: dict[str, str], expected: str) -> None:
    with pytest.raises(UserError, match=expected.replace('.', r'\.')):
        PERCEPTION.values(given)


def test_a_model_that_is_no_folder_and_not_shipped_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'model:=warehose: .* no family .* there are .*warehouse'):
        check_model('warehose')
    for model in ('warehouse', str(tmp_path), '/nowhere', 'package://other/models/arm', ''):
        check_model(model)


def test_values_of_another_type_are_refused() -> None:
    with pytest.raises(UserError, match='scene_seed:=one is not of type int'):
        SIMULATION.values({'scene_seed': 'one'})


def test_words_that_are_no_assignments_are_refused() -> None:
    assert up.parse_assignments(['a:=b:=c', 'd:=']) == {'a': 'b:=c', 'd': ''}
    with pytest.raises(UserError, match="'model=x' is not of the form name:=value"):
        up.parse_assignments(['model=x'])


def test_the_discovery_range_goes_to_the_environment() -> None:
    given = PERCEPTION.values({'discovery_range': 'localhost'})
    assert up.environment(given)['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert 'ROS_AUTOMATIC_DISCOVERY_RANGE' not in up.environment(PERCEPTION.values({}))


def test_the_transports_that_the_user_has_chosen_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4')
    assert up.environment(PERCEPTION.values({})) == {}


def test_commands_that_are_no_nodes_get_no_ros_arguments() -> None:
    command = Process('pruned-perception', words=('monitor',))
    assert up.arguments_of(command, SIMULATION, SIMULATION.values({})) == ['monitor']
