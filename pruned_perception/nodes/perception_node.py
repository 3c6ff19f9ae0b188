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
    from pruned_perception.bundle import Bundle
    from pruned_perception.nodes.image_node import ImageNode, Pipeline


def load(values: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline; its libraries load while the node already looks for its camera.

    The model is read and verified by a thread meanwhile: hashing needs no interpreter lock.
    """
    from concurrent.futures import ThreadPoolExecutor

    keys = _keys(values)
    with ThreadPoolExecutor(max_workers=1) as thread:
        read = thread.submit(_read, values, keys)
        from pruned_perception.nodes.perception import DetectorPipeline
    return DetectorPipeline(read.result(), values, keys)


def look(values: Mapping[str, Any]) -> None:
    """Raise UserError where the manifests show that these values cannot be loaded."""
    from pruned_perception.bundle import member_names, resolve_model
    from pruned_perception.inference.providers import ProviderError, parse
    from pruned_perception.nodes.parameters import ParameterError

    try:
        parse(values['execution_provider'])
    except ProviderError as error:
        raise ParameterError(f'parameter {error}') from None
    names = member_names(resolve_model(values['model']), trusted_keys=_keys(values))
    for parameter in ('member', 'active_member'):
        if values[parameter] and values[parameter] not in names:
            raise ParameterError(
                f'parameter {parameter}: {values[parameter]!r} is no member of {values["model"]}, '
                f'which has {", ".join(names)}'
            )


def load_key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what another pipeline is needed for, where it differs.

    Under a budget all members are loaded, and a change between them needs none.
    """
    names = (
        'model', 'member', 'trusted_keys', 'execution_provider', 'threads', 'watch_share',
        'watch_file',
    )  # fmt: skip
    budget = values['latency_budget_ms'] > 0
    return (*(values[name] for name in names), budget, '' if budget else values['active_member'])


def _keys(values: Mapping[str, Any]) -> Sequence[str]:
    from pruned_perception.bundle import signature

    file = values['trusted_keys']
    try:
        return signature.trusted_keys(file) if file else ()
    except UserError as error:
        raise UserError(f'parameter trusted_keys: {error}') from error


def _read(values: Mapping[str, Any], keys: Sequence[str]) -> Sequence[Bundle]:
    """Return the bundles to choose from, most accurate first."""
    from pruned_perception.bundle import is_family, load_family, load_member, resolve_model

    path = resolve_model(values['model'])
    if values['latency_budget_ms'] and not values['member'] and is_family(path):
        return load_family(path, trusted_keys=keys).by_accuracy
    wanted = values['member'] or values['active_member']
    return (load_member(path, wanted, trusted_keys=keys),)


def create_node(**node_options: Any) -> ImageNode:
    """Return the node, unconfigured; `node_options` are rclpy's own."""
    from pruned_perception.nodes.image_node import ImageNode
    from pruned_perception.nodes.parameters import PERCEPTION_PARAMETERS

    return ImageNode('perception_node', PERCEPTION_PARAMETERS, load, load_key, look, **node_options)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; 0 after Ctrl-C or SIGTERM, 1 where it cannot start."""
    return node_process.run(create_node, args)


if __name__ == '__main__':
    sys.exit(main())
