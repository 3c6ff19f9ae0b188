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

"""What else makes a detector faster, beside pruned ones: the market at the same latency.

    python -m studies.market warehouse DATA --folder WORK BUNDLE …
    python -m studies.market yolox SHARED --folder WORK BUNDLE …

The parent and what needs no pruning (INT8, smaller inputs; on robots' frames the other public
detectors, too), the bundles that are given, and those of `--int8` in 8 bits: run by turns on one
thread, and judged like `studies.label_free` judges. A line each is added to
`results/market.jsonl`; `python -m studies.market table` prints them as Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception._io import write_json
from pruned_perception._tables import Table
from pruned_perception.bundle import Bundle, load_bundle
from pruned_perception.inference.intervals import median_interval_if_any
from pruned_perception.optimize.alternatives import at_lower_resolution
from pruned_perception.optimize.probing import timed
from pruned_perception.quantization import quantize_bundle
from pruned_perception.training.compute import use_one_thread
from studies.label_free import DETECTORS, LABELS, Case, accuracy, bundle_of, coco, robot, warehouse

RESULTS = Path(__file__).with_name('results') / 'market.jsonl'
ROUNDS, RUNS = 15, 4
CALIBRATION = 64


def networks(args: argparse.Namespace, case: Case) -> Iterator[tuple[str, Bundle]]:
    """Yield what is compared, the parent first."""
    yield 'parent', case.bundle
    for share in (0.75, 0.5):
        smaller = at_lower_resolution(case.bundle, args.folder / f'input{share:g}', share)
        if smaller is not None:
            yield f'parent, input {smaller.input.width} × {smaller.input.height}', smaller
    if args.study in DETECTORS:
        for name in DETECTORS:
            if name != args.study:
                yield name, bundle_of(name, args.data, args.folder / name)
    for path in args.bundles:
        yield f'{path.parent.name}/{path.name}', load_bundle(path)


def in_8_bits(bundle: Bundle, name: str, case: Case, folder: Path) -> Bundle:
    """Return the bundle in 8 bits, as `optimize` makes it."""
    spread = np.linspace(0, len(case.frames) - 1, CALIBRATION).astype(int)
    frames = [case.frames[k] for k in spread]
    return quantize_bundle(bundle, frames, folder, held_out=case.held_out, name=name)[0]


def study(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a line for each network."""
    makers = {'warehouse': warehouse, 'coco': coco}
    make = makers.get(args.study, lambda *where: robot(args.study, *where))
    case = make(args.data, args.folder / 'parent')
    found = list(networks(args, case))
    quantised = []
    for number, (name, bundle) in enumerate(found):
        if name == 'parent' or bundle.path.resolve() in [each.resolve() for each in args.int8]:
            folder = args.folder / f'int8-{number}'
            quantised.append((f'{name}, INT8', in_8_bits(bundle, f'n{number}', case, folder)))
    found += quantised
    times = timed([each.onnx_bytes for _, each in found], rounds=args.rounds, runs=RUNS)
    medians = np.median(times, -1)
    lines = []
    for (name, bundle), own in zip(found, medians, strict=True):
        ratios = medians[0] / own
        interval = median_interval_if_any(ratios)
        lines.append({
            'study': args.study, 'network': name, 'macs': bundle.cost.macs,
            'ms': round(float(np.median(own)), 3), 'faster': round(float(np.median(ratios)), 3),
            'interval': None if interval is None else [round(float(x), 3) for x in interval],
            **accuracy(bundle, case),
        })  # fmt: skip
        print(json.dumps(lines[-1], ensure_ascii=False), flush=True)
    return lines


def table(results: Path) -> str:
    """Return the lines as a Markdown table."""
    header = (
        'study | network | MMAC:.0f | × faster:.2f | interval, 95 % | ms:.2f | AP50:.3f | '
        'person:.3f | ball:.3f'
    )
    rows = []
    for line in results.read_text('utf-8').splitlines():
        each = json.loads(line)
        between = each['interval'] and '{:.2f} … {:.2f}'.format(*each['interval'])
        rows.append(
            (each['study'], each['network'], each['macs'] / 1e6 or None, each['faster'], between,
             each['ms'], each['ap50'], each.get(LABELS[0]), each.get(LABELS[1]))
        )  # fmt: skip
    return Table.under(header, rows).to_markdown()


def main() -> None:
    """Run one study and add its lines to the results, or print them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('study', choices=['warehouse', 'coco', *DETECTORS, 'table'])
    parser.add_argument('data', type=Path, nargs='?')
    parser.add_argument('bundles', type=Path, nargs='*')
    parser.add_argument('--folder', type=Path, help='of what is made on the way')
    parser.add_argument(
        '--int8', type=Path, nargs='*', default=[], help='bundles that are shown in 8 bits, too'
    )
    parser.add_argument('--rounds', type=int, default=ROUNDS)
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.study == 'table':
        print(table(args.results))
        return
    if args.data is None or args.folder is None:
        parser.error('DATA and --folder are needed')
    use_one_thread()
    lines = study(args)
    args.folder.mkdir(parents=True, exist_ok=True)
    write_json(args.folder / 'market.json', lines)
    with args.results.open('a', encoding='utf-8') as file:
        file.writelines(json.dumps(each, ensure_ascii=False) + '\n' for each in lines)


if __name__ == '__main__':
    main()
