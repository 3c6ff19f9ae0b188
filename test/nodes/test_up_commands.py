"""Sets of processes as data: arguments, refusals, command lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pruned_perception.errors import UserError
from pruned_perception.nodes import parameters, up
from pruned_perception.nodes.up import PERCEPTION, SETS, SIMULATION, Process, ProcessSet

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
        ({'autostart': 'yes'}, 'autostart:=yes is none of true, false'),
        ({'params_file': '/nowhere.yaml'}, 'params_file:=/nowhere.yaml: there is no such file'),
    ],
)
def test_bad_arguments_are_refused_by_name(given: dict[str, str], expected: str) -> None:
    with pytest.raises(UserError, match=expected.replace('.', r'\.')):
        PERCEPTION.values(given)


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
