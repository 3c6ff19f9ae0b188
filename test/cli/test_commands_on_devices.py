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

"""Commands with --device, on one that is not the CPU: see `other_device` for how, without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="export needs onnx: extra 'train'")

from other_device import DEVICE, OtherDevice  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.modules.module import register_module_forward_hook  # noqa: E402
from wide_detector import write_squares, write_wide_bundle  # noqa: E402

from pruned_perception.bundle import load_bundle  # noqa: E402
from pruned_perception.cli.main import main  # noqa: E402
from pruned_perception.inference.detector import Detector  # noqa: E402
from pruned_perception.training import compute  # noqa: E402
from pruned_perception.training.checkpoint import read_checkpoint  # noqa: E402

TASK = ['--task', 'blobs:task']
WIDE = """
from pathlib import Path

from pruned_perception.bundle import load_bundle
from pruned_perception.training.onnx_import.task import bundle_task

PLACE = Path(__file__).parent


def task():
    return bundle_task(load_bundle(PLACE / 'dense'), PLACE / 'images', 16)
"""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[torch.device]]:
    """Let `--device cuda` be the stand-in; return where layers will have run."""
    seen: set[torch.device] = set()

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen.add(output.device)

    monkeypatch.setattr(
        compute, 'find_device', lambda name: DEVICE if name == 'cuda' else torch.device(name)
    )
    handle = register_module_forward_hook(note)
    yield seen
    handle.remove()


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('devices')
    bundle = write_wide_bundle(folder / 'dense')
    write_squares(folder / 'images', 30)
    (folder / 'labels.txt').write_text('\n'.join(bundle.labels) + '\n')
    (folder / 'wide_task.py').write_text(WIDE)
    return folder


@pytest.mark.parametrize(
    'method',
    [
        ['--macs', '0.8', '--round-to', '1', '--images', '40'],
        ['--macs', '0.8', '--round-to', '1', '--criterion', 'taylor', '--refit'],
        ['--macs', '0.8', '--kind', 'low_rank', '--criterion', 'pca'],
        ['--params', '0.8', '--kind', 'sparsity', '--criterion', 'sipp_deterministic'],
    ],
    ids=['recommended', 'taylor', 'low_rank', 'sparsity'],
)
def test_prune_writes_the_same_files(
    tmp_path: Path, elsewhere: set[torch.device], method: list[str]
) -> None:
    cut = ['prune', *TASK, *method, '--out']
    assert main([*cut, str(tmp_path / 'here.pt')]) == 0
    elsewhere.clear()
    with OtherDevice():
        assert main([*cut, str(tmp_path / 'there.pt'), '--device', 'cuda']) == 0
    assert DEVICE in elsewhere
    here, there = (read_checkpoint(tmp_path / f'{name}.pt') for name in ('here', 'there'))
    assert there['plans'] == here['plans']
    for name, value in here['weights'].items():
        torch.testing.assert_close(there['weights'][name], value)


def test_sensitivities_are_the_same(tmp_path: Path, elsewhere: set[torch.device]) -> None:
    files = [tmp_path / name for name in ('here.json', 'there.json')]
    assert main(['sensitivity', *TASK, '--out', str(files[0])]) == 0
    with OtherDevice():
        assert main(['sensitivity', *TASK, '--out', str(files[1]), '--device', 'cuda']) == 0
    assert DEVICE in elsewhere
    here, there = (json.loads(each.read_text()) for each in files)
    assert there == here


def test_an_imported_detector_is_cut_and_exported_as_on_the_cpu(
    place: Path, tmp_path: Path, elsewhere: set[torch.device]
) -> None:
    images, dense = str(place / 'images'), str(place / 'dense')
    cut = ['--macs', '0.6', '--criterion', 'joint_error', '--round-to', '1', '--images', '12']
    found = []
    for name, mode in (('cpu', nullcontext()), ('cuda', OtherDevice())):
        small, out = str(tmp_path / f'{name}.pt'), str(tmp_path / name)
        with mode:
            own = ['--device', name]
            assert main(['prune', dense, '--calibration', images, *cut, *own, '--out', small]) == 0
            elsewhere.clear()
            compared = ['--parent', dense, '--compare-on', images]
            assert main(['export', small, *compared, *own, '--out', out]) == 0
            assert torch.device('cpu' if name == 'cpu' else DEVICE) in elsewhere
        found.append(load_bundle(tmp_path / name))
    here, there = found
    assert there.manifest['pruning'] == here.manifest['pruning']
    assert there.cost == here.cost
    Detector(there).self_check()


def test_a_task_is_exported_as_on_the_cpu(
    place: Path, tmp_path: Path, elsewhere: set[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(place))
    meaning = ['--labels', str(place / 'labels.txt'), '--decoder', 'anchor_free']
    command = ['export', '--task', 'wide_task:task', *meaning, '--parameter', 'strides=[8]']
    assert main([*command, '--out', str(tmp_path / 'here')]) == 0
    elsewhere.clear()
    with OtherDevice():
        assert main([*command, '--out', str(tmp_path / 'there'), '--device', 'cuda']) == 0
    assert DEVICE in elsewhere
    here, there = (load_bundle(tmp_path / name) for name in ('here', 'there'))
    assert there.onnx_bytes == here.onnx_bytes


def test_optimize_looks_at_the_network_there(
    place: Path, tmp_path: Path, elsewhere: set[torch.device], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['optimize', str(place / 'dense'), '--images', str(place / 'images')]
    budget = ['--macs', '0.6', '--round-to', '1', '--recipe', 'quick', '--skip', 'int8']
    own = ['--out', str(tmp_path / 'family'), '--device', 'cuda', '--dry-run', '--force']
    with OtherDevice():
        assert main([*command, *budget, *own]) == 0
    assert DEVICE in elsewhere
    assert 'macs60' in capsys.readouterr().out
