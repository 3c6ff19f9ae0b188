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

"""The one-shot results as a picture.

python -m studies.cifar_plot GRID.yaml RESULTS.csv PICTURE.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from studies.cifar_pruning import Cell, read


def draw(cells: list[Cell], grid: dict[str, dict[str, object]], budget: float, path: Path) -> None:
    """Draw accuracy of scores × allocations at a budget; the title has the best peer."""
    scores, allocations = list(grid['scores']), list(grid['allocations'])
    own = [each for each in cells if each.budget == budget and each.accuracy is not None]
    values = np.full((len(scores), len(allocations)), np.nan)
    for row, score in enumerate(scores):
        for column, rule in enumerate(allocations):
            found = [c.accuracy for c in own if (c.score, c.allocation) == (score, rule)]
            if found:
                values[row, column] = np.mean(found)
    figure = Figure(figsize=(9, 6), layout='constrained')
    axis = figure.subplots()
    axis.imshow(values, cmap='viridis', aspect='auto')
    axis.set_xticks(range(len(allocations)), allocations, rotation=40, ha='right')
    axis.set_yticks(range(len(scores)), scores)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = 'white' if value < middle else 'black'
            axis.text(column, row, f'{value:.0f}', ha='center', va='center', color=colour)
    peers = [each for each in own if each.score.startswith('tp_')]
    best = max(peers, key=lambda each: each.accuracy or 0.0, default=None)
    beside = f'; {len(peers)} of Torch-Pruning: at best {best.accuracy:.0f} %' if best else ''
    axis.set_title(f'{budget:.0%} of the MACs, not fine-tuned: accuracy in %{beside}')
    axis.set_xlabel('allocation')
    axis.set_ylabel('score')
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw a file of results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('grid', type=Path, help='YAML file')
    parser.add_argument('results', type=Path, help='CSV file')
    parser.add_argument('picture', type=Path)
    parser.add_argument('--budget', type=float, default=0.5)
    args = parser.parse_args()
    grid = yaml.safe_load(args.grid.read_text(encoding='utf-8'))
    draw(read(args.results), grid, args.budget, args.picture)


if __name__ == '__main__':
    main()
