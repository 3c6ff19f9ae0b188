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

"""What the output error says of a detector: beside AP50, at several budgets, refitted and not.

    pruned-perception bundle create FastestDet.onnx dense --decoder fastestdet --labels coco.names …
    python -m studies.output_error dense CALIBRATION DATA --macs 0.9 0.8 0.7 0.6 0.5

prunes any ONNX detector by the recommended recipe, without fine-tuning; CALIBRATION is a folder of
pictures without labels, DATA an annotated data set of others. Where a cut collapses, the nearest
budget that holds is looked for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from pruned_perception._tables import Table
from pruned_perception.bundle import Bundle, load_member, write_bundle
from pruned_perception.inference.accuracy import evaluate
from pruned_perception.pruning import Macs, Planner, finish
from pruned_perception.pruning.outcome import with_nearest
from pruned_perception.training.onnx_import import export_onnx, import_onnx
from pruned_perception.training.onnx_import.task import bundle_task


def ap50(bundle: Bundle, small: nn.Module, data: Path) -> float:
    """Return what the network gets on the data, exported into a bundle like the dense one."""
    manifest = json.loads((bundle.path / 'manifest.json').read_text(encoding='utf-8'))
    manifest.pop('model', None)
    manifest.pop('contract_sha256', None)
    network = import_onnx(bundle.onnx_path)
    with tempfile.TemporaryDirectory() as folder:
        exported = write_bundle(Path(folder) / 'small', export_onnx(network, small), manifest)
        return evaluate(exported, data, resamples=0)[0].ap50


def main() -> None:
    """Prune, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bundle', type=Path, help='the dense ONNX detector')
    parser.add_argument('calibration', type=Path, help='folder of pictures')
    parser.add_argument('data', type=Path, help='annotated data set')
    parser.add_argument('--macs', type=float, nargs='+', default=[0.9, 0.8, 0.7, 0.6, 0.5])
    parser.add_argument('--images', type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_member(args.bundle)
    task = bundle_task(bundle, args.calibration, args.images)
    began = time.process_time()
    planner = Planner(task.model, task.example_inputs, calibration=task.calibration)
    print(
        f'{len(planner.structure.channels)} groups, {time.process_time() - began:.1f} s of tracing'
    )
    rows: list[tuple[object, ...]] = [
        (1.0, None, 0.0, evaluate(bundle, args.data, resamples=0)[0].ap50)
    ]
    for share in args.macs:
        plan = planner.plan(Macs(share))
        small = planner.cut(plan)
        for refit in (False, True):
            made, outcome = finish(task.model, small, task.calibration, plan=plan, refit=refit)
            assert outcome is not None
            found = ap50(bundle, made, args.data)
            rows.append(
                (plan.macs / plan.dense_macs, 'yes' if refit else 'no', outcome.error, found)
            )
        outcome = with_nearest(outcome, Macs(share), planner)
        if outcome is not None and outcome.collapses:
            print(f'{share:.0%}: {outcome.warning()}', flush=True)
    header = 'MACs:.1% | refitted | output error:.2f | AP50:.3f'
    print(Table.under(header, rows).to_markdown())


if __name__ == '__main__':
    main()
