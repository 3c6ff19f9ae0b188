"""What pruning without labels keeps: our over-sized detector on the simulator.

    pruned-perception simulate --split train --frames 300 --seed 77 --out DATA/drive
    pruned-perception simulate --split test --frames 600 --out DATA/test
    python -m studies.label_free warehouse DATA --macs 0.5 --minutes 30

The labels of `drive` are never read. Its last 60 frames (three layouts) steer; accuracy is that of
the exported bundle on `test`, whose layouts, textures and lights are others. Each line that is
printed is added to `results/label_free.jsonl`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from pruned_perception._io import write_json
from pruned_perception.bundle import load_bundle
from pruned_perception.datasets import read_dataset
from pruned_perception.pruning import Macs
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import use_one_thread
from pruned_perception.training.detector.accuracy import evaluate
from pruned_perception.training.label_free import RECIPES, LabelFree, prune_label_free
from pruned_perception.training.onnx_import.task import export_bundle_network

RESULTS = Path(__file__).with_name('results') / 'label_free.jsonl'
STEERING = 60


def warehouse(args: argparse.Namespace) -> dict[str, Any]:
    """Prune the shipped dense detector, and return what became of it."""
    bundle = load_bundle('models/warehouse/dense')
    frames = list(read_dataset(args.data / 'drive').images())
    recipe = _recipe(args)
    began = time.process_time()
    result = prune_label_free(
        bundle,
        frames[:-STEERING],
        Macs(args.macs),
        recipe=recipe,
        training=None if not args.minutes else TrainingBudget(cpu_minutes=args.minutes),
        held_out=frames[-STEERING:],
        seed=args.seed,
        folder=args.folder,
        report=lambda title, share, remark: print(f'{title} {share:.0%} {remark}', flush=True),
    )
    seconds = time.process_time() - began
    print(result.record.to_text())
    small = export_bundle_network(
        bundle,
        result.network,  # type: ignore[arg-type]
        [plan.to_dict() for plan in result.plans],
        args.folder / 'bundle',
        name='label-free',
    )
    write_json(args.folder / 'record.json', result.record.to_dict())
    metrics, _ = evaluate(small, args.data / 'test', resamples=0)
    return {
        'ap50': round(metrics.overall.ap50, 4),
        'ap50_95': round(metrics.overall.ap50_95, 4),
        'macs': small.cost.macs,
        'cpu_minutes': round(seconds / 60, 1),
        'stages': result.record.to_dict()['stages'],
    }


def _recipe(args: argparse.Namespace) -> LabelFree:
    recipe = RECIPES[args.recipe]
    return dataclasses.replace(recipe, **json.loads(args.change))


def main() -> None:
    """Run one study and add its line to the results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('study', choices=['warehouse'])
    parser.add_argument('data', type=Path)
    parser.add_argument('--macs', type=float, default=0.5)
    parser.add_argument('--minutes', type=float, default=0, help='of teaching; 0: none')
    parser.add_argument('--recipe', default='standard', choices=list(RECIPES))
    parser.add_argument('--change', default='{}', help='fields of the recipe, as JSON')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--folder', type=Path, required=True, help='of the work and the bundle')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    use_one_thread()
    asked = {
        key: getattr(args, key) for key in ('study', 'macs', 'minutes', 'recipe', 'change', 'seed')
    }
    line = json.dumps({**asked, **warehouse(args)})
    print(line)
    args.results.parent.mkdir(exist_ok=True)
    with args.results.open('a', encoding='utf-8') as file:
        file.write(line + '\n')


if __name__ == '__main__':
    main()
