"""Detect objects in the images of one camera; include it once for each camera.

    ros2 launch pruned_perception perception.launch.py image:=/camera/image_raw namespace:=front

An argument that is '' is not passed on, so that params_file and the node's defaults hold.
`--show-args` lists them; they are described in pruned_perception/nodes/processes.py, which
`pruned-perception up perception` shares.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from pruned_perception.nodes import processes


def start(context: LaunchContext) -> list[Node]:
    """Return the node, with those arguments that are given."""
    given = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in processes.PERCEPTION.arguments
    }
    values = processes.PERCEPTION.values(given)
    parameters = [values['params_file']] if values['params_file'] else []
    for name in ('model', 'member', 'image_transport'):
        if values[name]:
            parameters.append({name: ParameterValue(values[name], value_type=str)})
    for name in ('autostart', 'use_sim_time'):
        if values[name]:
            parameters.append({name: values[name] == 'true'})
    return [
        Node(
            package='pruned_perception',
            executable='perception_node',
            name='perception_node',
            namespace=values['namespace'],
            parameters=parameters,
            remappings=[('image_raw', values['image'])] if values['image'] else [],
            ros_arguments=['--log-level', values['log_level']] if values['log_level'] else [],
            additional_env=processes.environment(values),
            respawn=values['respawn'] == 'true',
            respawn_delay=processes.RESPAWN_DELAY_S,
            output='screen',
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(each.name, default_value=each.default, description=each.text)
                for each in processes.PERCEPTION.arguments
            ),
            OpaqueFunction(function=start),
        ]
    )
