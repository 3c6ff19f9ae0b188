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

"""A simulated robot in a warehouse, perception on its camera, and the monitor.

    ros2 launch pruned_perception simulation.launch.py

An argument that is '' is not passed on, so that params_file and the nodes' defaults hold.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from pruned_perception.nodes import transport, up

ROBOT_PARAMETERS = ('scene_seed', 'rate_hz')
"""Arguments that are parameters of the robot."""

PERCEPTION_ARGUMENTS = (
    'model',
    'member',
    'active_member',
    'latency_budget_ms',
    'execution_provider',
    'trusted_keys',
    'namespace',
    'node_name',
    'enclave',
    'params_file',
    'autostart',
    'respawn',
    'use_respawn',
    'use_sim_time',
    'discovery_range',
    'log_level',
)
"""Arguments that perception.launch.py takes, too."""


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, perception, the robot and the monitor."""
    perception = PathJoinSubstitution(
        [FindPackageShare('pruned_perception'), 'launch', 'perception.launch.py']
    )
    return LaunchDescription(
        [
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
                'scene_seed',
                default_value='',
                description='Which warehouse the robot drives in (default: 0).',
            ),
            DeclareLaunchArgument(
                'rate_hz', default_value='', description='Images per second (default: 15).'
            ),
            DeclareLaunchArgument(
                'execution_provider',
                default_value='',
                description='Where the network runs: cpu, openvino, cuda, tensorrt, …; several, '
                'best first, to fall back (default: cpu).',
            ),
            DeclareLaunchArgument(
                'trusted_keys',
                default_value='',
                description='File of public keys: only models signed by one of them are loaded '
                '(default: any model).',
            ),
            DeclareLaunchArgument(
                'namespace',
                default_value='',
                description='Namespace of all names; one for each camera.',
            ),
            DeclareLaunchArgument(
                'node_name',
                default_value='perception_node',
                description='Name of the perception node.',
            ),
            DeclareLaunchArgument(
                'enclave',
                default_value='',
                description='Security enclave of the processes (default: /; docs/security.md).',
            ),
            DeclareLaunchArgument(
                'params_file',
                default_value='',
                description='YAML file of parameters; arguments given here win over it.',
            ),
            DeclareLaunchArgument(
                'autostart',
                default_value='',
                choices=up.TRUTH,
                description='Configure and activate at start; false leaves it to a lifecycle '
                'manager (default: true).',
            ),
            DeclareLaunchArgument(
                'respawn',
                default_value='',
                choices=up.TRUTH,
                description='Start a process again 2 s after it ended (default: use_respawn).',
            ),
            DeclareLaunchArgument(
                'use_respawn',
                default_value='',
                choices=up.TRUTH,
                description="Nav2's name for respawn (default: false).",
            ),
            DeclareLaunchArgument(
                'use_sim_time',
                default_value='',
                choices=up.TRUTH,
                description='Take the time from /clock (default: false).',
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
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(perception),
                launch_arguments=[
                    (name, LaunchConfiguration(name)) for name in PERCEPTION_ARGUMENTS
                ],
            ),
            OpaqueFunction(function=start_robot_and_monitor),
        ]
    )


def start_robot_and_monitor(context: LaunchContext) -> list[ExecuteProcess]:
    """Return the robot and the monitor, with what is given.

    A function for the reason that start_node in perception.launch.py is one.
    """

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    ros_arguments = ['--params-file', given('params_file')] if given('params_file') else []
    if given('enclave'):
        ros_arguments += ['--enclave', given('enclave')]
    if given('log_level'):
        ros_arguments += ['--log-level', up.LOG_LEVELS.find(given('log_level')) or '']
    environment = transport.environment(os.environ)
    if given('discovery_range'):
        range_ = up.DISCOVERY_RANGES.find(given('discovery_range')) or ''
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = range_.upper()
    common = {
        'additional_env': environment,
        'respawn': up.is_true(given('respawn') or given('use_respawn')),
        'respawn_delay': 2.0,
        'output': 'screen',
    }
    monitor_words = ['--enclave', given('enclave')] if given('enclave') else []
    monitor_words += ['--use-sim-time'] if up.is_true(given('use_sim_time')) else []
    pushed = context.launch_configurations.get('ros_namespace', '')
    return [
        Node(
            package='pruned_perception',
            executable='simulated_robot',
            name='simulated_robot',
            namespace=up.namespace_within(pushed, given('namespace')),
            ros_arguments=ros_arguments,
            parameters=[
                {name: LaunchConfiguration(name)} for name in ROBOT_PARAMETERS if given(name)
            ],
            **common,
        ),
        ExecuteProcess(
            name='monitor',
            cmd=[
                ExecutableInPackage('pruned-perception', 'pruned_perception'),
                *('monitor', '--interval', '2', *monitor_words),
            ],
            **common,
        ),
    ]
