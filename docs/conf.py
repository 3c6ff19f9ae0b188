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

"""Settings of Sphinx, for rosdoc2, which takes all of them from here once there is such a file."""

from importlib.util import find_spec

project = 'pruned_perception'
author = 'the pruned_perception developers'
extensions = ['sphinx.ext.napoleon']  # docstrings with Args, Returns, Raises
source_suffix = {'.rst': 'restructuredtext', '.md': 'markdown'}
master_doc = 'index'
html_theme = 'sphinx_rtd_theme'
myst_heading_anchors = 4  # to which pages link
# What the docstrings' modules import, as far as the machine that builds has it not.
_IMPORTED = (
    'builtin_interfaces cv2 diagnostic_msgs geometry_msgs jinja2 launch launch_ros lifecycle_msgs '
    'matplotlib mujoco onnx onnxruntime PIL rcl_interfaces rclpy rich rosbag2_py rosgraph_msgs '
    'scipy sensor_msgs statistics_msgs std_msgs torch torchvision vision_msgs yaml'
)
autodoc_mock_imports = [name for name in _IMPORTED.split() if find_spec(name) is None]
# What rosdoc2 reads, too.
rosdoc2_settings: dict[str, object] = {}
pkgs_to_mock: list[str] = []
exhale_args: dict[str, object] = {}
breathe_projects: dict[str, str] = {}
intersphinx_mapping: dict[str, object] = {}
