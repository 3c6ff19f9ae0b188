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

"""One-shot pruning of the CIFAR-10 ResNets: every score under every allocation, and their peers.

    python -m studies.cifar_pruning resnet20 studies/cifar_pruning.yaml RESULTS.csv

makes what is missing in RESULTS.csv, judged on held-out training images after measuring batch
norms again, and prints the tables (`--table`: only prints them). Evidence is measured once for all
cells that use it. With `images: test` in the grid, nothing can be chosen any more: it is judged on
the 10,000 test images. Fine-tuned rows are `pruned-perception compare studies/cifar_resnet56.yaml`.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception._tables import Table
from pruned_perception.pruning import (
    BudgetError,
    Macs,
    PruningError,
    allocate,
    count,
    recalibrate,
    score,
    trace,
)
from pruned_perception.pruning.refit import refit
from pruned_perception.pruning.scores import Evidence
from pruned_perception.training.method import Cut, Function, Method, pruned, read_method
from studies import cifar
from studies.cifar_data import load_test, load_training

TASKS = {'resnet20': cifar.resnet20, 'resnet44': cifar.resnet44, 'resnet56': cifar.resnet56}
PEER = 'studies.torch_pruning_peers:prune'
REFIT = ' refitted'


@dataclass(frozen=True)
class Cell:
    """One pruned network: how it was chosen, what it costs, what it still gets right.

    `score` and `allocation` are names of the grid; of other methods, `allocation` is empty.
    """

    score: str
    allocation: str
    budget: float
    seed: int
    accuracy: float | None
    macs: float
    parameters: float
    cpu_seconds: float
    failed: str | None = None

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What tells cells apart."""
        return self.score, self.allocation, self.budget, self.seed


class OneShot:
    """A network, and the evidence that has been measured on it so far."""

    def __init__(self, name: str, grid: Mapping[str, Any]) -> None:
        """Load the network and the images."""
        self.name, self.grid = name, grid
        self.task = TASKS[name]()
        self.dense = count(self.task.model, self.task.example_inputs)
        self.structure = trace(self.task.model, self.task.example_inputs)
        images = grid['images']  # how many of those held out for choices, or all that test
        self.images = load_test() if images == 'test' else load_training()[1][:images]

    def parent(self) -> Cell:
        """Return what the parent gets right."""
        return self._judged(('parent', '', 1.0, 0), 0.0, self.task.model)

    def wanted(self) -> Iterator[tuple[tuple[str, str, float, int], Callable[[], nn.Module]]]:
        """Yield the key of each cell, and what makes its network."""
        grid, seeds = self.grid, self.grid['seeds']
        every, refits = grid.get('every_seed', False), grid.get('refits', [False])
        others: dict[str, Cut] = dict(_peers(grid))
        for name, each in grid['methods'].items():
            method = read_method(each, f'methods.{name}.')
            assert isinstance(method, Method)
            others[name] = method.how
        for budget in grid['budgets']:
            for (name, how), rule in itertools.product(grid['scores'].items(), grid['allocations']):
                for seed in seeds if every or how['criterion'] == 'random' else seeds[:1]:
                    for refitted in refits:
                        make = functools.partial(
                            self._under_allocation, name, rule, budget, seed, refitted=refitted
                        )
                        yield (name + REFIT * refitted, rule, budget, seed), make
            for name, cut in others.items():
                for seed in seeds if every else seeds[:1]:
                    yield (name, '', budget, seed), functools.partial(self._by, cut, budget, seed)

    def make(self, key: tuple[str, str, float, int], network: Callable[[], nn.Module]) -> Cell:
        """Return a cell; where the method cannot meet the budget, it says so."""
        began = time.process_time()
        try:
            return self._judged(key, began, network())
        except (BudgetError, PruningError) as error:
            seconds = time.process_time() - began
            return Cell(*key, None, 1.0, 1.0, seconds, failed=str(error))

    @functools.cache  # noqa: B019 - lives as long as the process
    def _evidence(self, name: str, seed: int) -> Evidence:
        """Return the evidence of a score of the grid, or of a criterion."""
        how = self.grid['scores'].get(name, {'criterion': name})
        return score(
            self.task.model,
            how['criterion'],
            example_inputs=self.task.example_inputs,
            calibration=self.task.calibration,
            loss=_labelled_loss() if how.get('labels') else None,
            seed=seed,
            structure=self.structure,
        )

    def _under_allocation(
        self, name: str, rule: str, budget: float, seed: int, *, refitted: bool
    ) -> nn.Module:
        how = self.grid['allocations'][rule]
        ranking = self._evidence(name, seed)
        evidence = ranking
        if (by := how.get('allocation_by')) is not None:
            same = self.grid.get('every_seed', False)
            evidence = self._evidence(by, seed if same else self.grid['seeds'][0])
        plan = allocate(evidence, Macs(budget), rule=how['allocation'], scores=ranking, round_to=1)
        small = plan.apply(self.task.model)
        if refitted:
            small = refit(self.task.model, small, plan, self.task.calibration, seed=seed)
        return recalibrate(small, self.task.calibration)

    def _by(self, cut: Cut, budget: float, seed: int) -> nn.Module:
        return pruned(self.task, cut, Macs(budget), seed)[0]

    def _judged(self, key: tuple[str, str, float, int], began: float, network: nn.Module) -> Cell:
        seconds = time.process_time() - began
        cost = count(network, self.task.example_inputs)
        return Cell(
            *key,
            accuracy=cifar.accuracy(network.eval(), self.images),
            macs=cost.macs / self.dense.macs,
            parameters=cost.parameters / self.dense.parameters,
            cpu_seconds=seconds,
        )


def _peers(grid: Mapping[str, Any]) -> dict[str, Function]:
    """Return Torch-Pruning's methods by name."""
    peers = grid.get('torch_pruning', {'importances': [], 'scopes': [], 'cuts': []})
    found = {}
    for importance, scope, cuts in itertools.product(
        peers['importances'], peers['scopes'], peers['cuts']
    ):
        options = {'importance': importance, 'scope': scope, 'cuts': cuts}
        name = f'tp_{importance}_{scope}' + (f'_{cuts}' if cuts > 1 else '')
        found[name] = Function(PEER, options)
    return found


def _labelled_loss() -> Callable[[Any, int, torch.Generator], Tensor]:
    labels = [each for _, each in cifar.calibration_batches()]
    return lambda outputs, index, generator: functional.cross_entropy(outputs, labels[index])


def read(path: Path) -> list[Cell]:
    """Return the cells of a file of results; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding='utf-8', newline='') as file:
        return [
            Cell(
                row['score'],
                row['allocation'],
                float(row['budget']),
                int(row['seed']),
                float(row['accuracy']) if row['accuracy'] else None,
                *(float(row[name]) for name in ('macs', 'parameters', 'cpu_seconds')),
                row['failed'] or None,
            )
            for row in csv.DictReader(file)
        ]


def write(path: Path, cells: Iterable[Cell]) -> None:
    """Write the cells, whole or not at all."""
    unfinished = path.with_name(f'.{path.name}')
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished.open('w', encoding='utf-8', newline='') as file:
        table = csv.DictWriter(file, [each.name for each in fields(Cell)], lineterminator='\n')
        table.writeheader()
        table.writerows(asdict(cell) for cell in cells)
    unfinished.replace(path)


def make_missing(name: str, grid: Mapping[str, Any], path: Path) -> None:
    """Make the cells that are not in the file, writing it after each."""
    cells = {cell.key: cell for cell in read(path)}
    study = OneShot(name, grid)
    wanted = list(study.wanted())
    if ('parent', '', 1.0, 0) not in cells:
        cells['parent', '', 1.0, 0] = study.parent()
    for number, (key, network) in enumerate(wanted, 1):
        if key not in cells:
            cell = cells[key] = study.make(key, network)
            found = cell.failed or f'{cell.accuracy:.2f} % at {cell.macs:.2%} of the MACs'
            print(f'{number} of {len(wanted)}: {" ".join(map(str, key))}: {found}', flush=True)
            write(path, cells.values())


def to_text(cells: list[Cell], grid: Mapping[str, Any]) -> str:
    """Return, per budget, a table of scores × allocations, and the other methods in order."""
    lines = [f'parent: {c.accuracy:.2f} %' for c in cells if c.score == 'parent']
    for budget in grid['budgets']:
        own = [cell for cell in cells if cell.budget == budget]
        columns = list(grid['allocations'])
        lines += ['', f'{budget:.0%} of the MACs: accuracy in %, scores × allocations']
        names = [f'{n}{REFIT * r}' for n in grid['scores'] for r in grid.get('refits', [False])]
        rows = [[each, *(_mean(own, each, column) for column in columns)] for each in names]
        if rows:
            header = [(each, '') for each in ('score', *columns)]
            lines += ['', Table(header, rows).to_markdown()]
        others = [cell for cell in own if not cell.allocation and cell.accuracy is not None]
        others.sort(key=lambda cell: -(cell.accuracy or 0))
        header = 'other method | seed:d | accuracy:.1f | MACs:.1% | parameters:.1%'
        methods = [(c.score, c.seed, c.accuracy, c.macs, c.parameters) for c in others]
        lines += ['', Table.under(header, methods).to_markdown()]
        lines += [f'{c.score}: {c.failed}' for c in own if c.failed and not c.allocation]
        if 'default' in grid['methods']:
            lines += ['', _without_options(own)]
    return '\n'.join(lines)


def _without_options(cells: list[Cell]) -> str:
    """Return the call without options beside the best of the others, by their means over seeds."""
    means: dict[tuple[str, str], float] = {}
    for name in {(cell.score, cell.allocation) for cell in cells}:
        found = [c.accuracy for c in cells if (c.score, c.allocation) == name]
        if None not in found:
            means[name] = sum(each for each in found if each is not None) / len(found)
    own = means.pop(('default', ''))
    if not means:
        return f'without options: {own:.2f} %'
    best = max(means, key=lambda name: means[name])
    return (
        f'without options: {own:.2f} %; best other cell, {" under ".join(filter(None, best))}: '
        f'{means[best]:.2f} %; difference {own - means[best]:+.2f}'
    )


def _mean(cells: list[Cell], score_: str, allocation: str) -> str:
    """Return the mean over seeds, and their range where there are several."""
    found = [c for c in cells if (c.score, c.allocation) == (score_, allocation)]
    values = [c.accuracy for c in found if c.accuracy is not None]
    if not values:
        return 'cannot' if found else '–'
    spread = f' ({min(values):.0f}–{max(values):.0f})' if len(values) > 1 else ''
    return f'{sum(values) / len(values):.1f}{spread}'


def main() -> None:
    """Make and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('network', choices=TASKS)
    parser.add_argument('grid', type=Path, help='YAML file')
    parser.add_argument('results', type=Path, help='CSV file')
    parser.add_argument('--table', action='store_true', help='only print what is there')
    args = parser.parse_args()
    grid = yaml.safe_load(args.grid.read_text(encoding='utf-8'))
    if not args.table:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        make_missing(args.network, grid, args.results)
    print(to_text(read(args.results), grid))


if __name__ == '__main__':
    main()
