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

"""`pruned-perception models`: rebuild a shipped family from its file, one step after the other.

Every step is resumable and is skipped where its result is there: start it again after any
interruption.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import (
    add_compute,
    compute_on,
    computing,
    refuse_several_processes,
)
from pruned_perception.cli.train import INTERRUPTED, add_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pruned_perception.bundle import Bundle
    from pruned_perception.training.detector.family import Excerpt, Quantization, Split

STEPS = ('data', 'train', 'export', 'quantize', 'certify', 'evaluate', 'latency', 'summary')
ROUNDS, RUNS = 40, 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `models`."""
    parser.add_argument(
        'family',
        type=Path,
        nargs='?',
        default=Path('config/experiments/warehouse.yaml'),
        help='YAML file; the experiments that it names lie beside it (default: %(default)s)',
    )
    add_folders(parser)
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='folder of the family (default: models/<name>)'
    )
    parser.add_argument(
        '--sources',
        type=Path,
        metavar='DIR',
        help='where the annotated data sets lie that the file names as `source` (default: --data)',
    )
    parser.add_argument(
        '--controls',
        action='store_true',
        help='train the controls as well: the same widths from scratch, for the same total time '
        'and for that of the fine-tuning',
    )
    parser.add_argument(
        '--import-dense',
        action='store_true',
        help='start from the dense bundle in --out instead of training that member',
    )
    parser.add_argument(
        '--steps',
        nargs='+',
        choices=STEPS,
        default=STEPS,
        help='only these steps (default: all)',
    )
    add_compute(parser)
    parser.add_argument('--quiet', action='store_true', help='no progress bars')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what shows without PyTorch."""
    refuse_several_processes('models')


def run(args: argparse.Namespace) -> int:
    """Run the steps in order."""
    from pruned_perception._processes import Interrupted
    from pruned_perception.bundle import load_bundle, load_family
    from pruned_perception.cli.progress import Progress
    from pruned_perception.inference.coco_metrics import gain
    from pruned_perception.training.compute import use_one_thread
    from pruned_perception.training.detector import family
    from pruned_perception.training.detector.runs import Folders, run_experiment

    spec = family.read_family_spec(args.family)
    folders = Folders(args.family.parent, args.data.expanduser(), args.runs.expanduser())
    out = args.out or Path('models') / spec.name
    sets = {name: folders.data / spec.name / name for name in spec.data}
    test = sets[spec.evaluated_on]
    test_name = f'{spec.name} {spec.evaluated_on}'
    use_one_thread()
    compute_on(args.device, quiet=True)  # what is not there is said before anything begins

    if 'data' in args.steps:
        for name, wanted in spec.data.items():
            if isinstance(wanted, family.Split):
                _generate(wanted, sets[name])
            else:
                _extract(wanted, args.sources or folders.data, sets[name])
    if 'train' in args.steps:
        if args.import_dense:
            family.import_member(spec.members[0], folders, out / spec.members[0].name)
        for name in family.experiments_of(spec, folders, controls=args.controls):
            try:
                with (
                    computing(args) as compute,
                    nullcontext() if args.quiet else Progress(name) as bar,
                ):
                    outcome = run_experiment(
                        folders.experiment(name),
                        folders,
                        report=bar.phase if bar else None,
                        compute=compute,
                    )
            except Interrupted as stop:
                print(f'{name}: interrupted {stop}; run the same command again to go on')
                return INTERRUPTED
            print(f'{name}: {outcome.steps} steps, {outcome.cpu_seconds / 60:.1f} CPU minutes')
    if 'export' in args.steps:
        parent = None
        for member in spec.members:
            bundle = family.export_member(
                member.experiment,
                member.name,
                folders,
                out / member.name,
                test=test,
                parent=parent,
                provenance=spec.provenance,
            )
            parent = parent or bundle
            print(f'{bundle.path}: {bundle.cost.macs / 1e6:.0f} MMAC')
    if 'quantize' in args.steps and spec.quantize is not None:
        _quantize(spec.quantize, out, sets[spec.quantize.data])
    if 'certify' in args.steps and family.HOLDOUT in sets:
        _certify(out, sets[family.HOLDOUT], spec.longest)
    if 'evaluate' in args.steps:
        in_8_bits = [] if spec.quantize is None else map(spec.quantize.name, spec.quantize.members)
        measured = {}
        for name in (*(member.name for member in spec.members), *in_8_bits):
            with Progress(f'evaluating {name}') as bar:
                measured[name] = family.evaluate_member(
                    load_bundle(out / name),
                    test,
                    data_name=test_name,
                    progress=bar.counted,
                )
            print(f'{name} on {test_name}:\n{measured[name].to_text()}')
        for member in spec.members if args.controls else ():
            bundle = load_bundle(out / member.name)
            for net, experiment in member.controls.items():
                if not folders.final(experiment).is_file():
                    print(f'{experiment}: not trained yet')
                    continue
                control = family.export_member(
                    experiment,
                    experiment,
                    folders,
                    folders.runs / experiment / 'bundle',
                    test=test,
                    parent=None,
                    provenance=spec.provenance,
                )
                metrics = family.evaluate_control(
                    control, bundle, test, net=net, data_name=test_name
                )
                print(f'{experiment} on {test_name}:\n{metrics.to_text()}')
                if (difference := gain(measured[member.name], metrics)) is not None:
                    print(
                        f'{member.name} against {experiment}: AP50 {difference.to_text()}, '
                        f'95 %, paired; resampled: {metrics.resampled}'
                    )
    if 'latency' in args.steps:
        _measure_latency(out, folders.runs / spec.name)
    if 'summary' in args.steps:
        print(family.summary(load_family(out)))
        if certified := family.certificates(load_family(out)):
            print(f'\n{certified}')
    return 0


def _extract(wanted: Excerpt, sources: Path, out: Path) -> None:
    """Copy a part of an annotated data set, unless it is there."""
    from pruned_perception._io import read_json
    from pruned_perception.datasets.conversion import RECORD
    from pruned_perception.datasets.excerpts import excerpt

    notes = excerpt(
        sources.expanduser() / wanted.source,
        wanted.groups,
        out,
        sha256=wanted.sha256,
        pictures_sha256=wanted.pictures_sha256,
        group_by=wanted.group_by,
        unit=wanted.unit,
    )
    pictures = read_json(out / RECORD).get('pictures_sha256', 'unknown')
    print(f'{out}: {len(notes)} frames, SHA-256 {notes.digest}, of pictures {pictures}')


def _generate(split: Split, out: Path) -> None:
    """Make a data set of the simulator, or what is missing of it."""
    from pruned_perception.cli.progress import Progress
    from pruned_perception.simulation import dataset

    spec = dataset.DatasetSpec(split.split, split.seed, split.frames)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(f'{split.split} data') as bar:
        summary = dataset.generate(spec, out, lambda done: bar.share(done / split.frames))
    print(f'{out}: {summary["frames"]} frames, SHA-256 {summary["sha256"]}')


def _quantize(wanted: Quantization, out: Path, data: Path) -> None:
    """Make the members in 8 bits, or those that are missing."""
    from pruned_perception.bundle import load_bundle
    from pruned_perception.cli.progress import Progress
    from pruned_perception.cli.quantize import frames_of
    from pruned_perception.training.detector import family

    images, held_out = frames_of(data / 'images', None, wanted.calibration, wanted.held_out)
    for member in wanted.members:
        name = wanted.name(member)
        with Progress(f'quantising {member}') as bar:
            bundle = family.quantize_member(
                load_bundle(out / member), out / name, wanted, images, held_out, progress=bar.share
            )
        found = bundle.manifest['quantization']
        print(
            f'{bundle.path}: {found["scheme"]}, {len(found["float_layers"])} of '
            f'{found["layers"]} layers in float, divergence {found["error"]["divergence"]:.4f}'
        )


def _certify(out: Path, holdout: Path, longest: dict[str, int]) -> None:
    """Certify every pruned member against the dense one and record it in its manifest."""
    from pruned_perception.bundle import load_family, record_evidence
    from pruned_perception.cli.progress import Progress
    from pruned_perception.datasets import read_dataset
    from pruned_perception.pruning.errors import TooFewDrivesError
    from pruned_perception.training.detector.certification import certify_bundles

    dense, *others = load_family(out).members
    notes = read_dataset(holdout)
    if len(set(notes.groups)) < 2:
        unit = notes.unit or 'group'
        print(
            f'no certificates: {holdout} is of one {unit}, which says nothing of how {unit}s '
            'differ; name two or more'
        )
        others = []
    for member in others:
        there = member.manifest['certificate']
        if there is not None and _is_of(there, dense, member, notes.digest):
            print(f'{member.name}: certified already')
            continue
        try:
            with Progress(f'certifying {member.name}') as bar:
                certificate = certify_bundles(
                    dense, member, holdout, longest=longest, progress=bar.counted
                )
        except TooFewDrivesError as error:  # the dense one finds next to nothing there
            print(f'{member.name}: not certified: {error}')
            continue
        record_evidence(member, 'certificate', certificate.to_dict())
        print(f'{member.name} against {dense.name}:\n{certificate.to_text()}')
    _by_group(load_family(out).members, holdout)


def _by_group(members: Sequence[Bundle], holdout: Path) -> None:
    """Print the members' AP50 in each group of the hold-out, where groups are few, as venues are.

    It is looked at alone: what is recorded as an evaluation can certify no more.
    """
    from pruned_perception.cli.progress import Progress
    from pruned_perception.datasets import read_dataset
    from pruned_perception.inference.accuracy import detect_all
    from pruned_perception.inference.detector import Detector
    from pruned_perception.inference.errors import DeviationError
    from pruned_perception.inference.resampling import ENOUGH_GROUPS
    from pruned_perception.inference.slices import by_group

    notes = read_dataset(holdout).with_labels(members[0].labels, members[0].name)
    if len(set(notes.groups)) >= ENOUGH_GROUPS:
        return
    found = {}
    for member in members:
        try:
            detector = Detector(member)
        except DeviationError as error:  # in 8 bits, for other processors
            print(f'{member.name}: left out: {error}')
            continue
        with Progress(f'looking, {member.name}') as bar:
            found[member.name] = detect_all(detector, notes, progress=bar.counted)
    print(by_group(notes, found).to_text())


def _is_of(certificate: dict[str, Any], dense: Bundle, member: Bundle, digest: str) -> bool:
    """Say whether a certificate is of these two models, on the hold-out of that SHA-256."""
    record = certificate['record']
    return (
        certificate['holdout_sha256'] == digest
        and record['parent']['sha256'] == dense.sha256
        and record['child']['sha256'] == member.sha256
    )


def _measure_latency(out: Path, tables: Path) -> None:
    """Measure all members by turns with one thread and write the result into their manifests.

    With it goes what latency tables predict: of the dense member, and of it in 8 bits, made here
    for it. A table of another machine stays, and is refused.
    """
    from pruned_perception.benchmark import engine
    from pruned_perception.benchmark.profile import layers_of, profile
    from pruned_perception.bundle import load_family, record_evidence
    from pruned_perception.cli.profile import predicted_ms
    from pruned_perception.cli.progress import Progress

    networks = engine.load_networks([out])
    predicted: dict[str, float] = {}
    tables.mkdir(parents=True, exist_ok=True)
    for in_8_bits in (False, True):
        mine = [
            network
            for network, bundle in zip(networks, load_family(out).members, strict=True)
            if ('quantization' in bundle.manifest) == in_8_bits
        ]
        if not mine:
            continue
        file = tables / f'latency-{mine[0].name}-{mine[0].sha256[:12]}.json'
        with Progress(f'profiling {mine[0].name}') as bar:
            table = profile(mine[0], file, on_progress=bar.share)
        for network in mine:
            ms, _ = predicted_ms(table, layers_of(network)[0])
            if ms is not None:
                predicted[network.name] = ms
    configuration = {'rounds': ROUNDS, 'runs_per_round': RUNS, 'threads': 1}
    sessions = engine.open_sessions(networks)
    with Progress('latency') as bar:
        times = engine.measure(
            networks, rounds=ROUNDS, runs=RUNS, on_progress=bar.share, sessions=sessions
        )
    results = engine.compare(networks, times, sessions)
    print(engine.as_table(results))
    for which, bundle in enumerate(load_family(out).members):
        entry = engine.latency_entry(results, which, configuration)
        entry['predicted_ms'] = predicted.get(bundle.name)
        record_evidence(bundle, 'latency', entry, keys=('configuration',))
