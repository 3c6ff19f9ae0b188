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

"""A USB camera and perception on its images, in one namespace.

    sudo apt install ros-$ROS_DISTRO-v4l2-camera
    ros2 launch examples/with_camera_driver.launch.py namespace:=front device:=/dev/video0
    ros2 topic echo /front/detections

Another driver: replace the first Node; what matters is where it publishes sensor_msgs/Image.
"""

import os

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from pruned_perception.nodes import transport


def generate_launch_description() -> LaunchDescription:
    """Return the camera's driver and our launch file."""
    perception = PathJoinSubstitution(
        [FindPackageShare('pruned_perception'), 'launch', 'perception.launch.py']
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'namespace', default_value='camera', description='Namespace of camera and detector.'
            ),
            DeclareLaunchArgument(
                'device', default_value='/dev/video0', description='Video4Linux device.'
            ),
            DeclareLaunchArgument(
                'model',
                default_value='',
                description='Bundle or family, or the name of a shipped one (default: warehouse).',
            ),
            Node(
                package='v4l2_camera',
                executable='v4l2_camera_node',
                namespace=LaunchConfiguration('namespace'),
                parameters=[
                    {
                        'video_device': LaunchConfiguration('device'),
                        'image_size': [640, 480],
                        'camera_frame_id': 'camera_optical_frame',
                    }
                ],
                # The driver, too, sends its images through shared memory: docs/node.md, Transport.
                additional_env=transport.environment(os.environ),
                output='screen',
            ),
            # The driver publishes image_raw in the namespace, which is where perception looks.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(perception),
                launch_arguments={
                    'namespace': LaunchConfiguration('namespace'),
                    'model': LaunchConfiguration('model'),
                }.items(),
            ),
        ]
    )
