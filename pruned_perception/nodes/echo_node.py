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

"""The executable `echo_node`: the perception node without its network, for benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pruned_perception.nodes import node_process

if TYPE_CHECKING:
    from pruned_perception.nodes.image_node import ImageNode


def create_node(**node_options: Any) -> ImageNode:
    """Return the node, unconfigured; `node_options` are rclpy's own."""
    from pruned_perception.nodes.echo import EchoPipeline
    from pruned_perception.nodes.image_node import ImageNode
    from pruned_perception.nodes.parameters import ECHO_PARAMETERS

    return ImageNode('echo_node', ECHO_PARAMETERS, EchoPipeline, **node_options)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; 0 after Ctrl-C or SIGTERM, 1 where it cannot start."""
    return node_process.run(create_node, args)


if __name__ == '__main__':
    sys.exit(main())
