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

"""Where the time of a detector goes, by operator, in float and in 8 bits.

    python -m studies.operators BUNDLE [BUNDLE …]

Of each bundle's file: the operators that take most of a run on one thread, each the least of
several runs, since other processes can only add. What it shows: docs/label_free.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.benchmark.engine import random_inputs
from pruned_perception.bundle import load_bundle
from pruned_perception.inference.engine import profiled_nodes

RUNS, SHOWN = 30, 6


def by_operator(model: bytes) -> tuple[dict[str, float], Counter[str]]:
    """Return milliseconds by operator, and how many nodes of it there are."""
    runs = profiled_nodes(
        model, lambda session: random_inputs(session, 'it', np.random.default_rng(0)), RUNS
    )
    least = np.min([[node['dur'] for node in run] for run in runs], axis=0) / 1e3
    times: dict[str, float] = {}
    for node, ms in zip(runs[0], least, strict=True):
        times[node['op_name']] = times.get(node['op_name'], 0.0) + float(ms)
    return times, Counter(node['op_name'] for node in runs[0])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('bundles', type=Path, nargs='+')
    rows = []
    for path in parser.parse_args().bundles:
        times, counts = by_operator(load_bundle(path).onnx_bytes)
        rows.append((path.name, 'all', sum(counts.values()), sum(times.values()), 1.0))
        for name, ms in sorted(times.items(), key=lambda each: -each[1])[:SHOWN]:
            rows.append(('', name, counts[name], ms, ms / sum(times.values())))
    print(Table.under('bundle | operator | nodes:d | ms:.2f | share:.0%', rows).to_markdown())


if __name__ == '__main__':
    main()
