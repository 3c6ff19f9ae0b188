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

"""The warehouse in Gazebo, its bridges, perception, the monitor, and a driver along a route.

    ros2 launch pruned_perception gazebo.launch.py
    ros2 launch pruned_perception gazebo.launch.py pass:=latency member:=tenth gui:=true

With pass:=accuracy stamps and the node's clock are the simulation's, and the box sensor is the
ground truth; with pass:=latency images are stamped with the wall clock by the bridge, and there are
no boxes. An argument that is '' is not passed on.
"""

import os
import shutil
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnShutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from pruned_perception.nodes import gazebo, transport, up

SHARE = FindPackageShare('pruned_perception')
PERCEPTION_ARGUMENTS = (
    'model',
    'member',
    'active_member',
    'latency_budget_ms',
    'namespace',
    'params_file',
    'discovery_range',
    'log_level',
)
"""Arguments that perception.launch.py takes, too."""


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and, once they are known, the processes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'world',
                default_value=PathJoinSubstitution([SHARE, 'worlds', 'warehouse.sdf']),
                description='World in SDF, with a robot as ours; warehouse_light.sdf beside the '
                'default is for machines without a graphics card.',
            ),
            DeclareLaunchArgument(
                'route',
                default_value=PathJoinSubstitution([SHARE, 'worlds', 'warehouse_route.csv']),
                description='File of a closed route, a point x,y a line; none: the robot stands.',
            ),
            DeclareLaunchArgument(
                'pass',
                default_value=gazebo.ACCURACY,
                choices=list(gazebo.PASSES),
                description='accuracy: simulated time and boxes; latency: wall-clock stamps.',
            ),
            DeclareLaunchArgument(
                'gui',
                default_value='false',
                choices=up.TRUTH,
                description="Open Gazebo's window (default: false).",
            ),
            DeclareLaunchArgument(
                'model',
                default_value='',
                description='Bundle or family: the name of a shipped one, a folder or '
                'package://PACKAGE/PATH (default: warehouse).',
            ),
            DeclareLaunchArgument(
                'member',
                default_value='',
                description='Use this member of the family alone, by name (default: the family).',
            ),
            DeclareLaunchArgument(
                'active_member',
                default_value='',
                description='Member of the family that runs, by name (default: the most accurate '
                'one that keeps latency_budget_ms; without a budget the dense one).',
            ),
            DeclareLaunchArgument(
                'latency_budget_ms',
                default_value='',
                description='Latency budget, ms, from header stamp to published detections '
                '(default: none).',
            ),
            DeclareLaunchArgument(
                'namespace', default_value='', description='Namespace of all names.'
            ),
            DeclareLaunchArgument(
                'params_file',
                default_value='',
                description='YAML file of parameters; arguments given here win over it.',
            ),
            DeclareLaunchArgument(
                'discovery_range',
                default_value='',
                choices=up.DISCOVERY_RANGES,
                description='ROS_AUTOMATIC_DISCOVERY_RANGE: how far nodes look for others '
                '(default: as it is set).',
            ),
            DeclareLaunchArgument(
                'log_level',
                default_value='',
                choices=up.LOG_LEVELS,
                description='Least severity that is logged (default: info).',
            ),
            OpaqueFunction(function=start_processes),
        ]
    )


def start_processes(context: LaunchContext) -> list[Action]:
    """Return the processes; raises UserError, which launch prints, where Gazebo is missing."""
    gazebo.require_gazebo()

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    share = Path(SHARE.perform(context))
    file = share / 'config' / 'gazebo_bridge.yaml'
    topics = gazebo.bridged_topics(file.read_text(encoding='utf-8'), str(file))
    folder = gazebo.new_folder()
    simulated = given('pass') == gazebo.ACCURACY
    environment = transport.environment(os.environ)
    if given('discovery_range'):
        range_ = up.DISCOVERY_RANGES.find(given('discovery_range')) or ''
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = range_.upper()
    with_gazebo = {**environment, **gazebo.transport_settings(os.environ)}
    if environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST':
        with_gazebo.setdefault('GZ_IP', os.environ.get('GZ_IP', '127.0.0.1'))
    pushed = context.launch_configurations.get('ros_namespace', '')
    namespace = up.namespace_within(pushed, given('namespace'))
    ros_arguments = []
    if given('log_level'):
        ros_arguments += ['--log-level', up.LOG_LEVELS.find(given('log_level')) or '']
    common = {'namespace': namespace, 'ros_arguments': ros_arguments, 'output': 'screen'}

    def remove_files(_context: LaunchContext) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    actions: list[Action] = [
        RegisterEventHandler(OnShutdown(on_shutdown=[OpaqueFunction(function=remove_files)])),
        ExecuteProcess(
            name='gazebo',
            cmd=gazebo.gazebo_command(given('world'), gui=up.is_true(given('gui'))),
            additional_env=with_gazebo,
            output='screen',
            on_exit=Shutdown(reason='Gazebo has ended'),
        ),
    ]
    for process in gazebo.PROCESSES[given('pass')]:
        bridge = gazebo.bridge_file(topics, process, folder)
        actions.append(
            Node(
                package='ros_gz_bridge',
                executable='parameter_bridge',
                name=f'{process}_bridge',
                parameters=[gazebo.bridge_parameters(process, given('pass'), bridge)],
                additional_env=with_gazebo,
                on_exit=Shutdown(reason=f'the bridge of the {process} has ended'),
                **common,
            )
        )
    perception = share / 'launch' / 'perception.launch.py'
    actions.append(
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(perception)),
            launch_arguments=[
                *((name, given(name)) for name in PERCEPTION_ARGUMENTS),
                ('use_sim_time', str(simulated).lower()),
            ],
        )
    )
    if given('route') and given('route') != 'none':
        actions.append(
            Node(
                package='pruned_perception',
                executable='route_driver',
                name='route_driver',
                parameters=[{'route': given('route')}],
                additional_env=environment,
                **common,
            )
        )
    actions.append(
        ExecuteProcess(
            name='monitor',
            cmd=[
                ExecutableInPackage('pruned-perception', 'pruned_perception'),
                *('monitor', '--interval', '2', *(['--use-sim-time'] if simulated else [])),
            ],
            additional_env=environment,
            output='screen',
        )
    )
    return actions
