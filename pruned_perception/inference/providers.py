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

"""Execution providers by name: what was asked for, and what runs. Nothing here loads the engine.

A choice is a text like `openvino`, or several, best first, with options of the provider's own:
`tensorrt trt_fp16_enable=1, cuda, cpu`. The first that loads runs the network; those after it get
what it leaves, and take its place where it does not load. Where nothing comes after it, that is an
error. Single operators that a provider does not know run on the processor, as ONNX Runtime has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pruned_perception.inference.errors import InferenceError

CPU = 'cpu'
_SUFFIX = 'ExecutionProvider'
_ELSEWHERE = frozenset(('azure',))  # runs networks on a server: images would leave the robot


class ProviderError(InferenceError):
    """An execution provider that is not there, does not load, or takes nothing of a network."""


@dataclass(frozen=True)
class Choice:
    """One provider that was asked for."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """Where a network runs."""

    provider: str
    nodes: Mapping[str, int] | None
    """How many of the graph's nodes each provider took; None: the engine does not say (ONNX
    Runtime before 1.24)."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Providers that were asked for before it, and why they do not run."""

    @property
    def left(self) -> int:
        """Nodes that the provider left to others, 0 where that is not known."""
        return sum(self.nodes.values()) - self.nodes.get(self.provider, 0) if self.nodes else 0

    @property
    def nodes_text(self) -> str:
        """The nodes of each in words, such as 'openvino 40, cpu 37'."""
        if self.nodes is None:
            return 'not told by this version of the engine'
        return ', '.join(f'{name} {count}' for name, count in self.nodes.items())

    @property
    def warning(self) -> str:
        """Say that it is not what was asked for first, and why; '' where it is."""
        if not self.passed_over:
            return ''
        reasons = '; '.join(f'{name}: {why}' for name, why in self.passed_over.items())
        return f'execution provider {self.provider} in place of {reasons}'

    def to_text(self) -> str:
        """Return provider and nodes, such as 'openvino (nodes: openvino 40, cpu 37)'."""
        return f'{self.provider} (nodes: {self.nodes_text})'

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as results have it."""
        return {
            'execution_provider': self.provider,
            'nodes': None if self.nodes is None else dict(self.nodes),
            'passed_over': dict(self.passed_over),
        }


def parse(text: str) -> tuple[Choice, ...]:
    """Return the choices of a text, best first; raises ProviderError where it is none.

    >>> parse('tensorrt trt_fp16_enable=1, cuda')[0]
    Choice(name='tensorrt', options={'trt_fp16_enable': '1'})
    """
    choices = []
    for part in text.split(','):
        name, *options = part.split() or ['']
        pairs = [each.partition('=') for each in options]
        if not name or '=' in name or not all(key and equals for key, equals, _ in pairs):
            raise ProviderError(
                f'execution_provider {text!r}: give a name such as cpu, or several, best first, '
                'each with options of its own: tensorrt trt_fp16_enable=1, cuda, cpu'
            )
        choices.append(Choice(name.lower(), {key: value for key, _, value in pairs}))
    return tuple(choices)


def short(name: str) -> str:
    """Return what we call a provider of the engine: 'CUDAExecutionProvider' is cuda."""
    return name.removesuffix(_SUFFIX).lower()


def by_name(available: Sequence[str]) -> dict[str, str]:
    """Return the engine's names of the providers that may be used, by ours, best first."""
    return {short(each): each for each in available if short(each) not in _ELSEWHERE}
