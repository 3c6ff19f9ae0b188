"""A simulated robot in a warehouse, perception on its camera, and the monitor.

    ros2 launch pruned_perception simulation.launch.py

`--show-args` lists the arguments; they are described in pruned_perception/nodes/processes.py,
which `pruned-perception up simulation` shares.
"""

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

from pruned_perception.nodes import processes


def start_robot_and_monitor(context: LaunchContext) -> list[ExecuteProcess]:
    """Return the robot, with those arguments that are given, and the monitor."""
    given = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in processes.SIMULATION.arguments
    }
    values = processes.SIMULATION.values(given)
    parameters = [values['params_file']] if values['params_file'] else []
    if values['scene_seed']:
        parameters.append({'scene_seed': int(values['scene_seed'])})
    if values['rate_hz']:
        parameters.append({'rate_hz': float(values['rate_hz'])})
    common = {
        'additional_env': processes.environment(values),
        'respawn': values['respawn'] == 'true',
        'respawn_delay': processes.RESPAWN_DELAY_S,
        'output': 'screen',
    }
    monitor = ExecutableInPackage('pruned-perception', 'pruned_perception')
    sim_time = ['--use-sim-time'] if values['use_sim_time'] == 'true' else []
    return [
        Node(
            package='pruned_perception',
            executable='simulated_robot',
            name='simulated_robot',
            namespace=values['namespace'],
            parameters=parameters,
            ros_arguments=['--log-level', values['log_level']] if values['log_level'] else [],
            **common,
        ),
        ExecuteProcess(
            name='monitor', cmd=[monitor, 'monitor', '--interval', '2', *sim_time], **common
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, perception.launch.py with those that it shares, and the rest."""
    shared = {each.name for each in processes.PERCEPTION.arguments}
    perception = PathJoinSubstitution(
        [FindPackageShare('pruned_perception'), 'launch', 'perception.launch.py']
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(each.name, default_value=each.default, description=each.text)
                for each in processes.SIMULATION.arguments
            ),
            OpaqueFunction(function=start_robot_and_monitor),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(perception),
                launch_arguments={
                    each.name: LaunchConfiguration(each.name)
                    for each in processes.SIMULATION.arguments
                    if each.name in shared
                }.items(),
            ),
        ]
    )
