"""Detect objects in the images of one camera; include it once for each camera.

    ros2 launch pruned_perception perception.launch.py image:=/camera/image_raw namespace:=front

An argument that is '' is not passed on, so that params_file and the node's defaults hold.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from pruned_perception.nodes import transport

PARAMETERS = {
    'model': str,
    'member': str,
    'active_member': str,
    'latency_budget_ms': float,
    'trusted_keys': str,
    'image_transport': str,
    'autostart': bool,
    'use_sim_time': bool,
}
"""Arguments that are parameters of the node, and their types."""


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'model',
                default_value='',
                description='Bundle or family: a folder or package://PACKAGE/PATH '
                '(default: the shipped family).',
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
                choices=['', 'raw', 'compressed'],
                description='raw, or compressed for the topic IMAGE/compressed (default: raw).',
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
                choices=['', 'true', 'false'],
                description='Configure and activate at start; false leaves it to a lifecycle '
                'manager (default: true).',
            ),
            DeclareLaunchArgument(
                'respawn',
                default_value='false',
                choices=['true', 'false'],
                description='Start a process again 2 s after it ended.',
            ),
            DeclareLaunchArgument(
                'use_sim_time',
                default_value='',
                choices=['', 'true', 'false'],
                description='Take the time from /clock (default: false).',
            ),
            DeclareLaunchArgument(
                'discovery_range',
                default_value='',
                choices=['', 'localhost', 'subnet', 'off', 'system_default'],
                description='ROS_AUTOMATIC_DISCOVERY_RANGE: how far nodes look for others '
                '(default: as it is set).',
            ),
            DeclareLaunchArgument(
                'log_level',
                default_value='',
                choices=['', 'debug', 'info', 'warn', 'error', 'fatal'],
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

    # By --params-file: of a file that is not there, `parameters` would only warn.
    ros_arguments = ['--params-file', given('params_file')] if given('params_file') else []
    if given('enclave'):
        ros_arguments += ['--enclave', given('enclave')]
    if given('log_level'):
        ros_arguments += ['--log-level', given('log_level')]
    # The Fast DDS profile for images, unless transports are chosen already (docs/node.md).
    environment = transport.environment(os.environ)
    if given('discovery_range'):
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = given('discovery_range').upper()
    return [
        Node(
            package='pruned_perception',
            executable='perception_node',
            name='perception_node',
            namespace=LaunchConfiguration('namespace'),
            remappings=[('image_raw', given('image'))] if given('image') else [],
            ros_arguments=ros_arguments,
            parameters=[
                {name: ParameterValue(LaunchConfiguration(name), value_type=type_)}
                for name, type_ in PARAMETERS.items()
                if given(name)
            ],
            additional_env=environment,
            respawn=LaunchConfiguration('respawn'),
            respawn_delay=2.0,
            output='screen',
        )
    ]
