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

"""The values of an ONNX graph: who writes and who reads them, and what is known of them."""

from __future__ import annotations

import onnx
from onnx import helper


class Values:
    """As the graph is now; nodes that are added later are not seen.

    Attributes:
        writer: value → the node that gives it.
        readers: value → the nodes that take it, in order.
        constants: value → tensor.
        shapes: value → shape, where it is known; 0 stands for a side that is not.
        outputs: of the graph.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.writer = {value: node for node in graph.node for value in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for value in node.input:
                self.readers.setdefault(value, []).append(node)
        self.constants = {each.name: each for each in graph.initializer}
        self.shapes = {
            each.name: tuple(d.dim_value for d in each.type.tensor_type.shape.dim)
            for each in (*graph.input, *graph.value_info, *graph.output)
        }
        self.outputs = {each.name for each in graph.output}

    def private(self, value: str, operator: str) -> onnx.NodeProto | None:
        """Return who writes the value, where it is such a node, and one other alone reads it."""
        node = self.writer.get(value)
        alone = len(self.readers.get(value, ())) == 1 and value not in self.outputs
        return node if node is not None and node.op_type == operator and alone else None


def attribute(node: onnx.NodeProto, name: str) -> object:
    """Return the attribute's value; None without it."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
