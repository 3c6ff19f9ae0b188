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

"""Execution providers: what runs, what is refused, and that nothing falls back unasked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_writer as ow
import pytest
from tiny_detector import tiny_onnx

from pruned_perception.inference import engine
from pruned_perception.inference.engine import create_session
from pruned_perception.inference.errors import InferenceError
from pruned_perception.inference.providers import Choice, Execution, ProviderError, parse

FAKE = 'OpenVINOExecutionProvider'


class Installed:
    """An ONNX Runtime with a provider more, which does as it is told; networks run on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = self.vanishes = False
        self.takes = 1.0
        """Share of the nodes."""
        self.asked: list[dict[str, Any]] = []
        installed = self

        class Session(engine.Session):
            def __init__(self, model: bytes, options: Any, providers: Any, **more: Any) -> None:
                installed.asked.append({'providers': providers, **more})
                names = [name for name, _ in providers]
                if FAKE in names and installed.fails:
                    raise RuntimeError('/ort/ep.cc:7 void Load(const char*) no library\nof its own')
                self.here = FAKE in names and not installed.vanishes
                super().__init__(model, options, providers=['CPUExecutionProvider'], **more)

            def get_providers(self) -> list[str]:
                return [FAKE] * self.here + ['CPUExecutionProvider']

            def get_provider_graph_assignment_info(self) -> list[Any]:
                mine = round(10 * installed.takes) if self.here else 0
                parts = [(FAKE, mine), ('CPUExecutionProvider', 10 - mine)]
                return [
                    SimpleNamespace(ep_name=name, get_nodes=lambda count=count: range(count))
                    for name, count in parts
                    if count
                ]

        monkeypatch.setattr(engine, 'Session', Session)
        names = [FAKE, 'AzureExecutionProvider', 'CPUExecutionProvider']
        monkeypatch.setattr(engine.onnxruntime, 'get_available_providers', lambda: names)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(monkeypatch)


def test_choices_have_an_order_and_options() -> None:
    assert parse('tensorrt a=1 b=/x=y, CUDA,cpu') == (
        Choice('tensorrt', {'a': '1', 'b': '/x=y'}),
        Choice('cuda'),
        Choice('cpu'),
    )


@pytest.mark.parametrize('text', ['', ' ', 'cpu,', 'cuda fp16', 'a=1', 'cuda =1'])
def test_what_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(ProviderError, match='give a name such as cpu'):
        parse(text)


def test_the_processor_takes_all_nodes() -> None:
    execution = create_session(tiny_onnx()).execution
    assert execution.provider == 'cpu'
    assert execution.passed_over == {}
    if execution.nodes is not None:  # ONNX Runtime 1.24 and later
        assert set(execution.nodes) == {'cpu'}
        assert execution.nodes['cpu'] > 1


def test_one_that_is_not_there_is_refused_with_the_list_of_what_is(installed: Installed) -> None:
    with pytest.raises(
        ProviderError, match=r'cuda: not there\..*Runtime has openvino, cpu; to fall'
    ):
        create_session(tiny_onnx(), execution_provider='cuda')
    assert installed.asked == []  # the engine itself was asked for nothing


def test_one_that_would_send_images_to_a_server_is_not_there(installed: Installed) -> None:
    assert engine.providers() == ('openvino', 'cpu')
    with pytest.raises(ProviderError, match='azure: not there'):
        create_session(tiny_onnx(), execution_provider='azure')


def test_one_that_is_there_runs(installed: Installed) -> None:
    session = create_session(tiny_onnx(), execution_provider='openvino x=1', threads=3)
    assert session.execution == Execution('openvino', {'openvino': 10})
    (asked,) = installed.asked
    assert asked['providers'] == [(FAKE, {'num_of_threads': '3', 'x': '1'})]


def test_the_engines_own_retries_are_off(installed: Installed) -> None:
    session = create_session(tiny_onnx(), execution_provider='openvino')
    assert installed.asked[0]['enable_fallback'] == 0
    assert not session._enable_fallback


def test_one_that_fails_to_load_is_an_error_that_quotes_it(installed: Installed) -> None:
    installed.fails = True
    with pytest.raises(ProviderError, match=r'openvino: does not load it: no library\. This'):
        create_session(tiny_onnx(), execution_provider='openvino')


def test_one_that_the_engine_dropped_in_silence_is_an_error(installed: Installed) -> None:
    installed.vanishes = True
    with pytest.raises(ProviderError, match='openvino: does not load: a library or a device'):
        create_session(tiny_onnx(), execution_provider='openvino')


def test_one_that_takes_no_node_is_an_error(installed: Installed) -> None:
    installed.takes = 0
    with pytest.raises(ProviderError, match='openvino: takes none of the 10 nodes'):
        create_session(tiny_onnx(), execution_provider='openvino')


@pytest.mark.parametrize('trouble', ['absent', 'fails', 'vanishes', 'takes'])
def test_another_takes_its_place_where_that_was_asked_for(
    trouble: str, installed: Installed
) -> None:
    name = 'openvino'
    if trouble == 'absent':
        name = 'cuda'
    elif trouble == 'takes':
        installed.takes = 0
    else:
        setattr(installed, trouble, True)
    execution = create_session(tiny_onnx(), execution_provider=f'{name}, cpu').execution
    assert execution.provider == 'cpu'
    assert list(execution.passed_over) == [name]
    assert execution.warning.startswith(f'execution provider cpu in place of {name}: ')


def test_half_of_the_nodes_are_counted(installed: Installed) -> None:
    installed.takes = 0.5
    execution = create_session(tiny_onnx(), execution_provider='openvino').execution
    assert execution.nodes == {'openvino': 5, 'cpu': 5}
    assert execution.left == 5
    assert execution.to_text() == 'openvino (nodes: openvino 5, cpu 5)'
    assert execution.warning == ''


def test_a_damaged_model_is_not_blamed_on_the_processor(installed: Installed) -> None:
    with pytest.raises(InferenceError, match='ONNX Runtime cannot load it') as caught:
        create_session(tiny_onnx().replace(b'Conv', b'Cnov'), execution_provider='openvino, cpu')
    assert not isinstance(caught.value, ProviderError)


def test_an_engine_that_does_not_count_says_so(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.Session, 'get_provider_graph_assignment_info', None)
    execution = create_session(tiny_onnx(), execution_provider='openvino').execution
    assert execution.nodes is None
    assert 'not told' in execution.to_text()


@pytest.mark.skipif(
    'openvino' not in engine.providers(),
    reason='needs onnxruntime-openvino in place of onnxruntime',
)
def test_openvino_itself_takes_part_of_a_network() -> None:
    values = [ow.value(name, 'float32', [1, 4, 8, 8]) for name in 'ae']
    nodes = [
        ow.node('Conv', ['a', 'w'], ['b'], kernel_shape=[1, 1]),
        ow.node('Relu', ['b'], ['c']),
        ow.node('Hardmax', ['c'], ['d'], axis=1),  # which OpenVINO does not know
        ow.node('Conv', ['d', 'w'], ['e'], kernel_shape=[1, 1]),
    ]
    weights = {'w': np.eye(4, dtype=np.float32)[:, :, None, None]}
    model = ow.model(nodes, values[:1], values[1:], weights)
    execution = create_session(model, execution_provider='openvino').execution
    assert execution.nodes == {'openvino': 3, 'cpu': 1}
    whole = create_session(tiny_onnx(), execution_provider='openvino').execution
    assert whole.left == 0
    with pytest.raises(ProviderError, match='openvino: does not load'):
        create_session(tiny_onnx(), execution_provider='openvino device_type=NPU')
