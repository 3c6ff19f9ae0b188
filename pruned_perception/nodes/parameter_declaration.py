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

_MOST_SHOWN = 200


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
        given = getattr(node, '_parameter_overrides', {})  # rclpy has no public name for it
        for name in sorted(set(given) - known):
            if not name.startswith('qos_overrides.'):
                node.get_logger().warning(
                    f'parameter {name}: this node has none of that name; it is ignored'
                )
        node.add_on_set_parameters_callback(self._on_set)
        # Humble has no callback for afterwards; ours is the only one that could still refuse.
        self._set_is_final = not hasattr(node, 'add_post_set_parameters_callback')
        if not self._set_is_final:
            node.add_post_set_parameters_callback(self._after_set)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @staticmethod
    def _declare(node: Node, row: Parameter) -> Any:
        try:
            node.declare_parameter(row.name, row.default, descriptor(row))
        except ParameterException as error:
            raise ParameterError(f'parameter {row.name}: {error}') from None
        value = node.get_parameter(row.name).value
        # `-p classes:=[]` arrives without a type: rcl cannot tell of what the array is empty.
        return row.default if value is None else row.coerce(value)

    def _on_set(self, parameters: Sequence[RosParameter[Any]]) -> SetParametersResult:
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
        # Doubles also take whole numbers (`-p max_age_ms:=100`), which rclpy would refuse.
        dynamic_typing=row.type in ('double', 'string_array'),
    )
    if row.bounds is not None and row.type == 'double':
        low, high = row.bounds
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif row.bounds is not None:
        low, high = (int(bound) for bound in row.bounds)
        result.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return result
