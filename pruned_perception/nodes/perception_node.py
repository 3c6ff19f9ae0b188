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

"""The executable `perception_node`: images in, detections out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pruned_perception.errors import UserError
from pruned_perception.nodes import node_process

if TYPE_CHECKING:
    from pruned_perception.nodes.image_node import ImageNode, Pipeline


def load(values: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline; its libraries load while the node already looks for its camera.

    The model is read and verified by a thread meanwhile: hashing needs no interpreter lock.
    """
    from concurrent.futures import ThreadPoolExecutor

    from pruned_perception.bundle import load_member, resolve_model, signature

    file = values['trusted_keys']
    try:
        keys = signature.trusted_keys(file) if file else ()
    except UserError as error:
        raise UserError(f'parameter trusted_keys: {error}') from error
    with ThreadPoolExecutor(max_workers=1) as thread:
        bundle = thread.submit(
            load_member, resolve_model(values['model']), values['member'], trusted_keys=keys
        )
        from pruned_perception.nodes.perception import DetectorPipeline
    return DetectorPipeline(bundle.result(), values, keys)


def create_node(**node_options: Any) -> ImageNode:
    """Return the node, unconfigured; `node_options` are rclpy's own."""
    from pruned_perception.nodes.image_node import ImageNode
    from pruned_perception.nodes.parameters import PERCEPTION_PARAMETERS

    loaded_by = ('model', 'member', 'trusted_keys', 'threads', 'watch_share', 'watch_file')
    return ImageNode('perception_node', PERCEPTION_PARAMETERS, load, loaded_by, **node_options)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; 0 after Ctrl-C or SIGTERM, 1 where it cannot start."""
    return node_process.run(create_node, args)


if __name__ == '__main__':
    sys.exit(main())
