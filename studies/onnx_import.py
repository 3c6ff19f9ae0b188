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

"""How well ONNX detectors come back as modules: agreement, groups to cut, half, export, time.

    python -m studies.onnx_import shared/data     # published detectors and ours

On pictures of COCO, stretched to each network's input. The cut to half is by filter norms, which
look at no picture: what matters here is that it arrives, in blocks of 1 and of 16 channels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from pruned_perception._tables import Table
from pruned_perception.images import read_image
from pruned_perception.inference.engine import create_session
from pruned_perception.pruning import Macs, count, make_plan, trace
from pruned_perception.training.onnx_import import export_onnx, folded, import_onnx
from pruned_perception.training.onnx_import.export import disagreement
from pruned_perception.training.onnx_import.network import Port

PICTURES, RUNS = 16, 25
SHIPPED = Path(__file__).parent.parent / 'models' / 'warehouse'
FILES = ('yolox_nano/yolox_nano.onnx', 'nanodet_m/nanodet_m_320.onnx', 'fastestdet/FastestDet.onnx')


def pictures(folder: Path, port: Port) -> Tensor:
    """Return PICTURES in 0 … 255 as an input takes them: its size, type and place of channels."""
    last = port.shape[-1] == 3
    height, width = port.shape[1:3] if last else port.shape[2:]
    files = sorted(folder.glob('*.jpg'))[:PICTURES]
    images = np.stack([cv2.resize(read_image(file), (width, height)) for file in files])
    tensor = torch.from_numpy(images)
    return (tensor if last else tensor.permute(0, 3, 1, 2)).to(port.dtype)


def row(name: str, path: Path, folder: Path) -> tuple[Any, ...]:
    """Return the table's row of one ONNX file."""
    network = import_onnx(path)
    module, example = network.module, network.example_inputs
    inputs = pictures(folder, network.inputs[0])
    groups = len(trace(module, example).groups.prunable)
    reached, again = [], 0.0
    for block in (1, 16):
        plan = make_plan(
            module, example, budget=Macs(0.5), criterion='filter_l2', allocation='uniform',
            round_to=block,
        )  # fmt: skip
        small = plan.apply(module)
        reached.append(f'{plan.macs / plan.dense_macs:.3f}')
        exported = export_onnx(network, small, (inputs[:1],))
        again = max(again, disagreement(replace(network, module=small), exported, (inputs,)))
    session, feed = create_session(path.read_bytes()), {network.inputs[0].name: inputs[:1].numpy()}
    return (
        name,
        count(folded(module), example).macs / 1e6,
        disagreement(network, path.read_bytes(), (inputs,)),
        groups,
        ' / '.join(reached),
        again,
        f'{_ms(lambda: session.run(None, feed)):.1f} / {_ms(lambda: module(inputs[:1])):.1f}',
    )


def _ms(run: Callable[[], Any]) -> float:
    """Return the CPU time of the best of RUNS, milliseconds."""
    best = float('inf')
    for _ in range(RUNS):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return 1000 * best


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', type=Path, help='folder with `detectors` and `coco128_train`')
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.data / 'coco128_train' / 'images'
    paths = {Path(each).stem: args.data / 'detectors' / each for each in FILES}
    paths |= {f'warehouse, {name}': SHIPPED / name / 'model.onnx' for name in ('dense', 'quarter')}
    header = (
        '| MMAC:.0f | agreement:.0e | groups:d | half | exported again:.0e '
        '| ms, ONNX Runtime / module'
    )
    rows = [row(name, path, folder) for name, path in paths.items()]
    print(Table.under(f' {header}', rows).to_markdown())


if __name__ == '__main__':
    main()
