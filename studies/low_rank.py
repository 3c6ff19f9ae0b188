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

"""Channels alone against channels and low rank, by a latency table, in one currency.

    pruned-perception profile models/warehouse/dense --out table.json
    python -m studies.low_rank DATA --table table.json

DATA holds `drive` of `label_free.py`; its labels are not read. What a channel costs is what
`compensated_error` says: the loss that is left when the layers that read it are fitted anew. What a
rank costs is said in the same loss: of a layer with outputs of covariance C and curvature Λ, the
eigenvalues of Λ½ C Λ½ beyond the rank, which is what the best projection loses. Both are divided
by `least_sum` as one: each layer that the table says is faster as two has its ranks as a group
beside the groups of channels. A rank stands in the total time only where two layers are faster at
the widths that the channels have by then. Nothing is cut, but with `--work FOLDER`: there the first
of the speeds is cut both ways and refitted (and then layers made two by the projection above, as
it is after the refit), measured by turns and judged on `test`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pruned_perception._tables import Table
from pruned_perception.inference.accuracy import evaluate
from pruned_perception.inference.coco_metrics import gain
from pruned_perception.inference.latency_table import (
    Convolution,
    LatencyTable,
    convolution,
    factored,
    read_table,
)
from pruned_perception.pruning import allocate
from pruned_perception.pruning.allocation import RULES, blocks_for, least_sum
from pruned_perception.pruning.contributions import kernel
from pruned_perception.pruning.criteria import Subject
from pruned_perception.pruning.criteria.compensated import output_curvature
from pruned_perception.pruning.criteria.joint_error import POSITIONS, field_moments
from pruned_perception.pruning.lowrank.factorisation import Factors, factored_layer
from pruned_perception.pruning.structure import LayerTerm, Widths
from pruned_perception.pruning.tracing import trace
from pruned_perception.training.compute import use_one_thread
from pruned_perception.training.label_free.losses import projection
from studies.milliseconds import RECIPE, Seed, bundle_of, prepared, ratio, refitted

RANK = 'rank of '
DAMPING = 1e-2  # of Λ, relative to its mean: what the frames cannot tell still counts


def lost_by_rank(seed: Seed) -> dict[str, list[float]]:
    """Return, for each layer and rank 0 … f, the loss that the best projection of it leaves."""
    structure = seed.evidence.structure
    subject = Subject(
        seed.network.module, structure, seed.calibration, projection(seed.bundle), seed.number
    )
    curvature = output_curvature(subject)
    modules = dict(seed.network.module.named_modules())
    found = {}
    for name, moments in field_moments(subject, POSITIONS).items():
        if name in curvature:
            weight = kernel(modules[name])[0].double().flatten(1)
            values, vectors = torch.linalg.eigh(curvature[name])
            weighed = (vectors * values.clamp(min=0).sqrt()).T @ weight
            energies = torch.linalg.eigvalsh(weighed @ moments.covariance @ weighed.T).clamp(min=0)
            tails = [0.0, *energies.cumsum(0).tolist()]  # eigvalsh sorts from the smallest
            found[name] = tails[::-1]
    return found


def layers_of(seed: Seed, table: LatencyTable) -> list[tuple[LayerTerm, Convolution]]:
    """Return the network's convolutions as the table has them, and what their channels are."""
    return [
        (term, table.as_written(convolution(shape[:4], shape[4:8], shape[8:])))
        for term in seed.evidence.structure.terms
        for shape in term.shapes
    ]


def latency_with(
    seed: Seed, table: LatencyTable, ranks: Mapping[str, list[int]]
) -> Callable[[Mapping[str, int]], float]:
    """Return the function from widths and places among `ranks` (past them: whole) to ms."""
    channels = seed.evidence.structure.channels
    layers = layers_of(seed, table)
    known: dict[tuple[int, float, float, int], float] = {}

    def kept(parts: tuple[tuple[str, float], ...], widths: Mapping[str, int]) -> float:
        gone = (1 - widths.get(name, channels[name]) / channels[name] for name, _ in parts)
        return 1 - sum(share * each for (_, share), each in zip(parts, gone, strict=True))

    def layer_ms(layer: Convolution, inputs: float, outputs: float, rank: int) -> float:
        dense = table.layer_ms(layer.geometry, inputs, outputs)
        area = layer.geometry.height * layer.geometry.width
        whole = table.network_ms(dense, area * outputs)
        if not 0 < rank < outputs:
            return whole
        first, second = factored(layer, rank)
        both = table.layer_ms(first.geometry, inputs, rank)
        both += table.layer_ms(second.geometry, rank, outputs)
        return min(whole, table.network_ms(both, area * (outputs + rank)))

    def latency(widths: Mapping[str, int]) -> float:
        total = 0.0
        for number, (term, layer) in enumerate(layers):
            own = ranks.get(term.layer, [])
            place = widths.get(RANK + term.layer, len(own) + 1) - 1
            rank = own[place] if place < len(own) else 0
            made = kept(term.outputs, widths)
            read = made if layer.geometry.depthwise else kept(term.inputs, widths)
            key = number, read, made, rank
            if key not in known:
                known[key] = layer_ms(layer, read * layer.inputs, made * layer.outputs, rank)
            total += known[key]
        return total

    return latency


def decomposed(seed: Seed, fitted: Any, ranks: Mapping[str, int]) -> Any:
    """Make two of each layer of a refitted network, as loses least of the loss; in place.

    Outputs y of mean ȳ become S (y − ȳ) + ȳ with S = R⁻¹ U Uᵀ R, R² = Λ and U the leading
    eigenvectors of R C R.
    """
    structure = trace(fitted, seed.network.example_inputs)
    subject = Subject(fitted, structure, seed.calibration, projection(seed.bundle), seed.number)
    curvature = output_curvature(subject)
    moments = field_moments(subject, POSITIONS, list(ranks))
    for name, rank in ranks.items():
        layer = fitted.get_submodule(name)
        weight = kernel(layer)[0].double().flatten(1)
        own = torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.double()
        mean = weight @ (moments[name].first / moments[name].count) + own
        values, vectors = torch.linalg.eigh(curvature[name])
        values = (values.clamp(min=0) + DAMPING * values.mean()).sqrt()
        root, inverse = ((vectors * each) @ vectors.T for each in (values, 1 / values))
        weighed = root @ weight
        leading = torch.linalg.eigh(weighed @ moments[name].covariance @ weighed.T).eigenvectors
        basis = leading[:, -rank:]
        kept = inverse @ basis @ basis.T @ root
        factors = Factors((basis.T @ weighed)[None], (inverse @ basis)[None])
        with torch.no_grad():
            both = factored_layer(layer, factors, (mean + kept @ (own - mean)).detach())
        parent, _, leaf = name.rpartition('.')
        setattr(fitted.get_submodule(parent), leaf, both)
    return fitted


def judged(
    seed: Seed, alone: Widths, joint: Widths, ranks: Mapping[str, int], data: Path, work: Path
) -> str:
    """Cut both ways, and say how long both take and how good they are."""
    bundles = []
    for name, widths in (('channels', alone), ('both', joint)):
        own = {each: widths[each] for each in seed.evidence.structure.channels}
        plan = allocate(seed.evidence, widths=own, round_to=RECIPE.round_to, seed=seed.number)
        network = refitted(seed, plan)
        if name == 'both':
            network = decomposed(seed, network, ranks)
        bundles.append(bundle_of(seed, network, plan, work / name))
    time, interval = ratio(*bundles)
    channels, both = (evaluate(each, data / 'test')[0] for each in bundles)
    difference = gain(both, channels)
    assert difference is not None
    return (
        f'time, channels and ranks ÷ channels: {time:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]; '
        f'AP50 {both.ap50:.4f} and {channels.ap50:.4f}, difference {difference.to_text()}'
    )


def main() -> None:
    """Divide budgets both ways, and print what is lost and which ranks are chosen."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('--table', type=Path, required=True, help='of `profile` of the parent')
    parser.add_argument(
        '--speeds', type=float, nargs='+', default=[1.25, 1.5, 2, 3, 4], metavar='X'
    )
    parser.add_argument('--images', type=int, default=RECIPE.images)
    parser.add_argument('--work', type=Path, help='cut the first speed both ways there')
    args = parser.parse_args()
    use_one_thread()
    table = read_table(args.table)
    seed = prepared(args.data, 0, args.images)
    structure = seed.evidence.structure
    lost = lost_by_rank(seed)
    ranks = {
        term.layer: sorted(faster)
        for term, layer in layers_of(seed, table)
        if term.layer in lost and (faster := table.faster_ranks(layer))
    }
    channels = {
        name: RULES['least_error'].curve(seed.evidence, name) for name in structure.channels
    }
    blocks = blocks_for(structure, table.block)
    latency = latency_with(seed, table, ranks)
    both = channels | {
        RANK + name: [float('inf'), *(lost[name][rank] for rank in own), 0.0]
        for name, own in ranks.items()
    }
    rows: list[tuple[object, ...]] = []
    text = ''
    for speed in args.speeds:
        ms = table.whole.ms / speed
        alone = least_sum(channels, latency, ms, blocks)
        joint = least_sum(both, latency, ms, {**blocks, **{RANK + name: 1 for name in ranks}})
        chosen = {
            name: own[joint[RANK + name] - 1]
            for name, own in ranks.items()
            if joint[RANK + name] <= len(own)
        }
        left = [
            sum(curves[name][width] for name, width in widths.items())
            for curves, widths in ((channels, alone), (both, joint))
        ]
        rows.append(
            (speed, left[0], left[1], left[1] / left[0], len(chosen),
             ', '.join(f'{name} {rank}' for name, rank in chosen.items()))
        )  # fmt: skip
        if args.work is not None and not text:
            text = judged(seed, alone, joint, chosen, args.data, args.work)
    header = (
        'faster, by the table:g | loss, channels:.4g | loss, channels and ranks:.4g | ratio:.3f | '
        'layers of low rank | ranks'
    )
    print(f'{len(ranks)} layers are faster at some rank, of {len(lost)}')
    print(Table.under(header, rows).to_markdown())
    print(text)


if __name__ == '__main__':
    main()
