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

"""The parameter table, declared on a node and kept valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter as RosParameter

from pruned_perception.errors import UserError
from pruned_perception.nodes.parameters import START, Parameter, ParameterError, check

if TYPE_CHECKING:
    from rclpy.node import Node

QOS_OVERRIDES = 'qos_overrides.'
"""How the names of rclpy's own parameters begin that override a topic's QoS."""

_MOST_SHOWN = 200


class _Refused(RosParameter[Any]):
    """In the place of a value that is refused; rclpy itself would give the numbers of two types."""

    def __init__(self, row: Parameter, reason: str) -> None:
        super().__init__(row.name, value=row.default)
        self.reason = reason


class NodeParameters:
    """The present values of a node's parameters, in the table's types.

    `refuse(changes)` may raise a UserError against valid changes for reasons of its own; `changed`
    is called after some were accepted. `is_active` tells whether the node is active.
    """

    def __init__(
        self,
        node: Node,
        table: Sequence[Parameter],
        *,
        is_active: Callable[[], bool],
        refuse: Callable[[Mapping[str, Any]], None],
        changed: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Declare the table on `node`; raises ParameterError for a value given at start."""
        self._table = table
        self._is_active = is_active
        self._refuse = refuse
        self._changed = changed
        self._node = node
        self._before: dict[str, Any] = {}
        self.values: Mapping[str, Any] = {row.name: self._declare(node, row) for row in table}
        known = {*self.values, 'use_sim_time', 'start_type_description_service'}
        for name in sorted(set(given_values(node)) - known):
            if not name.startswith(QOS_OVERRIDES):
                node.get_logger().warning(
                    f'parameter {name}: this node has none of that name; it is ignored'
                )
        if hasattr(node, 'add_pre_set_parameters_callback'):  # not in Humble
            node.add_pre_set_parameters_callback(self._before_set)
        node.add_on_set_parameters_callback(self._on_set)
        # Humble has no callback for afterwards; ours is the only one that could still refuse.
        self._set_is_final = not hasattr(node, 'add_post_set_parameters_callback')
        if not self._set_is_final:
            node.add_post_set_parameters_callback(self._after_set)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @staticmethod
    def _declare(node: Node, row: Parameter) -> Any:
        value = _filled(row, given_values(node).get(row.name, row.default))
        try:
            node.declare_parameter(row.name, value, descriptor(row), ignore_override=True)
        except ParameterException as error:
            raise ParameterError(f'parameter {row.name}: {error}') from None
        return value

    def _before_set(self, parameters: Sequence[RosParameter[Any]]) -> list[RosParameter[Any]]:
        """Put values into the table's types, so that no type changes."""
        rows = {row.name: row for row in self._table}
        result = []
        for parameter in parameters:
            row = rows.get(parameter.name)
            if row is not None and parameter.type_ != RosParameter.Type.NOT_SET:
                try:
                    parameter = RosParameter(row.name, value=_filled(row, parameter.value))
                except ParameterError as error:
                    parameter = _Refused(row, str(error))
            result.append(parameter)
        return result

    def _on_set(self, parameters: Sequence[RosParameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            if isinstance(parameter, _Refused):
                return SetParametersResult(successful=False, reason=parameter.reason)
        try:
            changes = self._checked(parameters)
            self._refuse(changes)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        names = [parameter.name for parameter in parameters]
        self._before = {
            name: self._node.get_parameter(name).value
            for name in names
            if self._node.has_parameter(name)
        }
        if self._set_is_final:
            self._after_set(parameters)
        return SetParametersResult(successful=True)

    def _after_set(self, parameters: Sequence[RosParameter[Any]]) -> None:
        for parameter in parameters:
            if parameter.name not in self._before:  # being declared
                continue
            old, new = _shown(self._before.get(parameter.name)), _shown(parameter.value)
            self._node.get_logger().info(
                f'parameter {parameter.name} was changed from {old} to {new}'
            )
        changes = self._checked(parameters)
        if changes:
            self.values = {**self.values, **changes}
            self._changed(changes)

    def _checked(self, parameters: Sequence[RosParameter[Any]]) -> dict[str, Any]:
        changes = {parameter.name: parameter.value for parameter in parameters}
        return check(self._table, changes, active=self._is_active())


def given_values(node: Node) -> Mapping[str, Any]:
    """Return what a node was started with, by names of parameters, declared or not."""
    overrides = getattr(node, '_parameter_overrides', {})  # rclpy has no public name for it
    return {name: parameter.value for name, parameter in overrides.items()}


def _filled(row: Parameter, value: Any) -> Any:
    """Return `value` in the row's type, and the default in place of an array of nothing.

    Of what an array is empty, neither rcl (`-p classes:=[]`, which arrives without a value) nor
    `ros2 param` can tell; and an empty list would have the type BYTE_ARRAY.
    """
    if value is None or (row.type == 'string_array' and not isinstance(value, str) and not value):
        return row.default
    return row.coerce(value)


def _shown(value: Any) -> str:
    """Return a value for the log: in bounds, and nothing in it acts on a terminal."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f'{text[:_MOST_SHOWN]}…'


def descriptor(row: Parameter) -> ParameterDescriptor:
    """Return the descriptor of one row: text, range, read-only or not."""
    result = ParameterDescriptor(
        name=row.name,
        description=f'{row.text} May change {row.change}.',
        additional_constraints=' | '.join(row.choices),
        read_only=row.change == START,
    )
    if row.bounds is not None and row.type == 'double':
        low, high = row.bounds
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif row.bounds is not None:
        low, high = (int(bound) for bound in row.bounds)
        result.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return result
