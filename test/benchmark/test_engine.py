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

"""Interleaved latency of networks: what is run, and how the figures are made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_detector import tiny_onnx

from pruned_perception.benchmark.engine import Network, as_table, compare, load_networks, measure
from pruned_perception.cli.main import main
from pruned_perception.errors import UserError


def test_bundles_families_and_bare_files_are_networks(tiny_bundle, tiny_family):
    networks = load_networks([tiny_family, tiny_bundle.path, tiny_bundle.onnx_path])
    assert [network.name for network in networks] == ['dense', 'small', 'tiny', 'model']
    assert [network.macs for network in networks] == [2000, 1000, 1728, None]
    assert networks[2].sha256 == networks[3].sha256 == tiny_bundle.sha256


def test_every_run_is_measured(tiny_family):
    networks = load_networks([tiny_family])
    shares = []
    times = measure(networks, rounds=3, runs=4, on_progress=shares.append)
    assert times.shape == (2, 3, 4)
    assert (times > 0).all()
    assert shares == [0, 1 / 3, 2 / 3, 1]


def test_speed_ups_are_ratios_round_by_round():
    networks = [Network(name, '0' * 64, None, b'') for name in ('dense', 'small')]
    # The machine slows down from round to round; the ratio stays.
    slow = np.array([1.0, 2.0, 5.0, 10.0, 20.0, 40.0])
    dense = 8.0 * slow[:, None] * np.array([1.0, 1.0, 1.5])
    small = 2.0 * slow[:, None] * np.array([1.0, 1.0, 3.0])
    first, second = compare(networks, np.stack([dense, small]))
    assert first.speedup == 1
    assert first.speedup_interval == (1, 1)
    assert second.speedup == 4
    assert second.speedup_interval == (4, 4)
    assert first.latency.p50 == np.percentile(dense, 50)
    assert second.latency.p90 == np.percentile(small, 90)
    assert second.latency.n == 18
    assert first.latency.p50_interval == (8.0, 320.0)  # six rounds, whatever the runs
    few = compare(networks, np.stack([dense, small])[:, :5])
    assert few[1].speedup_interval is None
    assert few[1].latency.p50_interval is None
    assert 'nan' in as_table(few)


def test_an_open_input_size_is_refused(tmp_path):
    import onnx_writer as ow

    nodes = [ow.node('Identity', ['x'], ['y'])]
    shape = [1, 3, 'height', 'width']
    values = [ow.value('x', 'float32', shape)], [ow.value('y', 'float32', shape)]
    (tmp_path / 'open.onnx').write_bytes(ow.model(nodes, *values, {}))
    with pytest.raises(UserError, match=r'open: input x is .*height.* only fixed shapes'):
        measure(load_networks([tmp_path / 'open.onnx']), rounds=1, runs=1)


def test_the_command_prints_a_table_and_writes_json(tiny_family, tmp_path, capsys):
    (tmp_path / 'bare.onnx').write_bytes(tiny_onnx(gain=50.0))
    arguments = ['benchmark', 'engine', str(tiny_family), str(tmp_path / 'bare.onnx')]
    options = ['--rounds', '2', '--runs', '3', '--json', str(tmp_path / 'result.json')]
    assert main([*arguments, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ['dense', 'small', 'bare']
    result = json.loads((tmp_path / 'result.json').read_text())
    assert result.keys() == {'environment', 'configuration', 'networks'}
    assert result['configuration']['threads'] == 1
    for network in result['networks']:
        assert network['latency_ms']['n'] == 6
        assert network['single_stream_style_p90_ms'] == network['latency_ms']['p90']
        assert network['speedup_interval'] is None  # two rounds
        assert network['speedup'] > 0


def test_json_alone_goes_to_standard_output(tiny_bundle, capsys):
    arguments = ['benchmark', 'engine', str(tiny_bundle.path), '--rounds', '2', '--runs', '2']
    assert main([*arguments, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['networks'][0]['name'] == 'tiny'
