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

"""Whether equal multiply-accumulates are equally fast: the networks of a comparison, by turns.

    python -m studies.latency studies/warehouse_one_shot.yaml joint_error alds pca

prunes the task's network by those methods of the file, in all their cuts, to its first budget,
and runs all of them in ONNX Runtime, one thread; nothing is fine-tuned. What they get
right is the comparison's own business.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pruned_perception.benchmark.engine import Network, as_table, compare, measure
from pruned_perception.compare.study import read_study
from pruned_perception.pruning import count
from pruned_perception.training.pipeline import prune_and_finetune
from pruned_perception.training.task import load_task


def as_network(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> Network:
    """Return a module as ONNX, with its cost."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = Path(folder) / 'model.onnx'
        torch.onnx.export(module.eval(), inputs, path, dynamo=False)
        model = path.read_bytes()
    return Network(name, hashlib.sha256(model).hexdigest(), count(module, inputs).macs, model)


def main() -> None:
    """Prune, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('comparison', type=Path, help='YAML file of `compare`')
    parser.add_argument('methods', nargs='+', help='names in it')
    parser.add_argument('--rounds', type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    study = read_study(args.comparison)
    task = load_task(study.task, weights=study.weights)
    networks = [as_network('dense', task.model, task.example_inputs)]
    for name in args.methods:
        print(f'pruning: {name}', flush=True)
        method = dataclasses.replace(study.methods[name], distill=None)
        module, _ = prune_and_finetune(task, method, study.budgets[0])
        networks.append(as_network(name, module, task.example_inputs))
    print(as_table(compare(networks, measure(networks, rounds=args.rounds, runs=10))))


if __name__ == '__main__':
    main()
