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

"""Detect objects in the images of one camera; include it once for each camera.

    ros2 launch pruned_perception perception.launch.py image:=/camera/image_raw namespace:=front

An argument that is '' is not passed on, so that params_file and the node's defaults hold. Choices
may be written in any case. An include inherits arguments of the same names from the file around it:
where these mean something else (another node's params_file), put it into a
GroupAction(scoped=True, forwarding=False).
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from pruned_perception.nodes import transport, up

TEXTS = ('model', 'member', 'active_member', 'execution_provider', 'trusted_keys')
NUMBERS = ('latency_budget_ms',)
SWITCHES = ('autostart', 'use_sim_time')
"""Arguments that are parameters of the node."""


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
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
                'image',
                default_value='',
                description='Topic of the images (default: image_raw in the namespace).',
            ),
            DeclareLaunchArgument(
                'image_transport',
                default_value='',
                choices=up.IMAGE_TRANSPORTS,
                description='raw, or compressed for the topic IMAGE/compressed (default: raw).',
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
            OpaqueFunction(function=start_node),
        ]
    )


def start_node(context: LaunchContext) -> list[Node]:
    """Return the node, with what is given.

    A function, because launch has conditions for actions but none for a single parameter: passed
    on as '', an argument that was not given would win over params_file.
    """

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def chosen(name: str, choices: up.Choices) -> str:
        return choices.find(given(name)) or ''

    up.check_model(given('model'))
    texts = {name: given(name) for name in TEXTS}
    texts['image_transport'] = chosen('image_transport', up.IMAGE_TRANSPORTS)
    # By --params-file: of a file that is not there, `parameters` would only warn.
    ros_arguments = ['--params-file', given('params_file')] if given('params_file') else []
    if given('enclave'):
        ros_arguments += ['--enclave', given('enclave')]
    if given('log_level'):
        ros_arguments += ['--log-level', chosen('log_level', up.LOG_LEVELS)]
    # The Fast DDS profile for images, unless transports are chosen already (docs/node.md).
    environment = transport.environment(os.environ)
    if given('discovery_range'):
        range_ = chosen('discovery_range', up.DISCOVERY_RANGES)
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = range_.upper()
    pushed = context.launch_configurations.get('ros_namespace', '')
    return [
        Node(
            package='pruned_perception',
            executable='perception_node',
            name=given('node_name') or 'perception_node',
            namespace=up.namespace_within(pushed, given('namespace')),
            remappings=[('image_raw', given('image'))] if given('image') else [],
            ros_arguments=ros_arguments,
            parameters=[
                # Of this type, whatever else YAML would take them for (a member named 10).
                {name: ParameterValue(text, value_type=str)}
                for name, text in texts.items()
                if text
            ]
            # As a float at once: launch takes a text of type float only with a decimal point.
            + [{name: up.number(name, given(name))} for name in NUMBERS if given(name)]
            + [{name: up.is_true(given(name))} for name in SWITCHES if given(name)],
            additional_env=environment,
            respawn=up.is_true(given('respawn') or given('use_respawn')),
            respawn_delay=2.0,
            output='screen',
        )
    ]
