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

"""A family of bundles from one file: which experiments make its members, on which data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pruned_perception._tables import Table
from pruned_perception.bundle import MANIFEST, Bundle, Family, load_bundle, record_evidence
from pruned_perception.datasets import read_dataset
from pruned_perception.datasets.division import BY_FOLDER
from pruned_perception.datasets.fingerprints import Fingerprints, fingerprints
from pruned_perception.inference.accuracy import (
    CONTROL,
    MEMBER,
    SHORT_CONTROL,
    evaluate,
    evaluation_record,
)
from pruned_perception.inference.coco_metrics import Metrics
from pruned_perception.inference.detector import Detector
from pruned_perception.pruning.certificate import Certificate, Statement, read_certificate
from pruned_perception.quantization import FLOAT_SHARE, quantize_bundle, scheme_for_here
from pruned_perception.quantization.bundles import calibration_sha256
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint
from pruned_perception.training.detector.checkpoint import detector_from
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.experiment import ExperimentError
from pruned_perception.training.detector.export import COMPARED_FRAMES, export_bundle
from pruned_perception.training.detector.importing import import_bundle
from pruned_perception.training.detector.runs import Folders

TRAIN = 'train'
TEST = 'test'
HOLDOUT = 'holdout'
"""The data set of a family that certificates are made on. Where there is a test set, nothing else
looks at it; where data are too few for both, members are evaluated on it, after they are certified.
"""


@dataclass(frozen=True)
class Split:
    """A data set of the simulator."""

    split: str
    frames: int
    seed: int


@dataclass(frozen=True)
class Excerpt:
    """Frames of some groups of an annotated data set; see `datasets.excerpts`."""

    source: str
    """Folder of the data set, below that of the sources."""
    groups: tuple[str, ...]
    sha256: str | None = None
    """Of the annotations of the whole data set."""
    pictures_sha256: str | None = None
    """Of these groups' pictures, see `datasets.excerpts`."""
    group_by: str = BY_FOLDER
    unit: str = 'venue'


@dataclass(frozen=True)
class Member:
    """A bundle `name`, made by `experiment`, and the experiments that it is compared with."""

    name: str
    experiment: str
    control: str | None = None
    """The same widths from scratch, for the time of the whole ancestry."""
    short_control: str | None = None
    """The same for the time of the fine-tuning alone, all that there is where a parent is given."""

    @property
    def controls(self) -> dict[str, str]:
        """The experiments of its controls, by what manifests call them."""
        named = {CONTROL: self.control, SHORT_CONTROL: self.short_control}
        return {net: experiment for net, experiment in named.items() if experiment is not None}


@dataclass(frozen=True)
class Quantization:
    """Which members come in 8 bits, too, as NAME-int8, and how; see `quantize_bundle`."""

    members: tuple[str, ...]
    data: str
    """The data set, by name: its first three quarters calibrate, the rest compares."""
    scheme: str = 'auto'
    float_share: float = FLOAT_SHARE
    leading_float: int | None = None
    """Layers at the start that stay in float; None: measured on the machine that makes them."""
    calibration: int = 64
    held_out: int = 64

    def name(self, member: str) -> str:
        """Return the name of a member in 8 bits."""
        return f'{member}-int8'


@dataclass(frozen=True)
class FamilySpec:
    """What `config/experiments/<family>.yaml` says; the first member is the dense one."""

    name: str
    data: dict[str, Split | Excerpt]
    members: tuple[Member, ...]
    provenance: dict[str, str]
    longest: dict[str, int]
    """Frames and objects of the longest drive that certificates shall speak of."""
    quantize: Quantization | None = None

    @property
    def evaluated_on(self) -> str:
        """The data set that members are evaluated on; raises ExperimentError where none is."""
        for name in (TEST, HOLDOUT):
            if name in self.data:
                return name
        raise ExperimentError(
            f'{self.name}: field data: has neither {TEST} nor {HOLDOUT}; members are evaluated on '
            'one of them'
        )


def read_family_spec(path: str | os.PathLike[str]) -> FamilySpec:
    """Read a family's YAML; raise ExperimentError that names file and field."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        sets = {name: _data_set(each) for name, each in data['data'].items()}
        _check_apart(sets, path)
        return FamilySpec(
            name=str(data['name']),
            data=sets,
            members=tuple(Member(**member) for member in data['members']),
            provenance=dict(data.get('provenance', {})),
            longest=dict(data.get('longest', {})),
            quantize=_quantization(data),
        )
    except OSError as error:
        raise ExperimentError(f'{path}: cannot be read: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise ExperimentError(f'{path}: not YAML: {error}') from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(f'{path}: not a family: {error} is missing or bad') from error


def _data_set(data: Mapping[str, Any]) -> Split | Excerpt:
    if 'source' not in data:
        return Split(**data)
    return Excerpt(**{**data, 'groups': tuple(map(str, data['groups']))})


def _check_apart(sets: Mapping[str, Split | Excerpt], path: Path) -> None:
    """Raise ExperimentError where a group is trained or certified on, and used otherwise, too."""
    for name in (TRAIN, HOLDOUT):
        own = sets.get(name)
        for other, each in sets.items():
            if not isinstance(own, Excerpt) or not isinstance(each, Excerpt) or other == name:
                continue
            both = [group for group in own.groups if group in each.groups]
            if both and (own.source, own.group_by) == (each.source, each.group_by):
                raise ExperimentError(
                    f'{path}: {own.unit} {both[0]} is in data.{name} and in data.{other}: what is '
                    'learnt or certified on is for nothing else'
                )


def _quantization(data: Mapping[str, Any]) -> Quantization | None:
    given = data.get('quantize')
    if given is None:
        return None
    wanted = Quantization(**{**given, 'members': tuple(given['members'])})
    known = [member['name'] for member in data['members']]
    for name in wanted.members:
        if name not in known:
            raise KeyError(f'quantize.members: {name}')
    if wanted.data not in data['data']:
        raise KeyError(f'quantize.data: {wanted.data}')
    return wanted


def experiments_of(spec: FamilySpec, folders: Folders, *, controls: bool) -> list[str]:
    """Return the experiments that make a family, parents first; of what is finished no parents.

    Parents that are no members are among them. With `controls`, the members' controls come last.
    """
    found: list[str] = []

    def add(name: str | None, *descendants: str) -> None:
        if name is None or name in found:
            return
        if name in descendants:
            raise ExperimentError(f'{spec.name}: experiment {name} is its own ancestor')
        if not folders.final(name).is_file():
            experiment = folders.experiment(name)
            add(experiment.parent or experiment.control_of, *descendants, name)
        found.append(name)

    for member in spec.members:
        add(member.experiment)
    for member in spec.members if controls else ():
        for experiment in member.controls.values():
            add(experiment)
    return found


def import_member(member: Member, folders: Folders, out: Path) -> None:
    """Put the bundle in `out` in place of the training that the member stands for.

    An experiment that is finished is left alone.
    """
    final = folders.final(member.experiment)
    if final.is_file():
        return
    experiment = folders.experiment(member.experiment)
    bundle = load_bundle(out)
    size = (bundle.input.height, bundle.input.width)
    frames = load_frames(folders.data / experiment.data['train'], size, labelled=False)
    save_checkpoint(final, import_bundle(bundle, frames))


def export_member(
    experiment: str,
    name: str,
    folders: Folders,
    out: Path,
    *,
    test: Path,
    parent: Bundle | None,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Export an experiment's result to the bundle `out`, compared on frames of `test`.

    A result that was imported from the very bundle in `out` is not written back: it would be the
    same net under another hash, which its children do not know.
    """
    content = read_checkpoint(folders.final(experiment))
    imported = content['ancestry'].get('bundle')
    if imported is not None and (out / MANIFEST).is_file():
        bundle = load_bundle(out)
        if bundle.sha256 == imported['sha256']:
            return bundle
    detector = detector_from(content, folders.final(experiment))
    images = load_frames(test, detector.input_size, labelled=False).images[:COMPARED_FRAMES]
    return export_bundle(
        content,
        detector,
        images,
        out,
        name=name,
        parent=parent,
        provenance=provenance,
    )


def quantize_member(
    source: Bundle,
    out: Path,
    wanted: Quantization,
    images: Sequence[NDArray[np.uint8]],
    held_out: Sequence[NDArray[np.uint8]],
    *,
    progress: Callable[[float], None] = lambda done: None,
) -> Bundle:
    """Make the bundle `out`: a member in 8 bits; the one that is there stays if it is that.

    It is where source, scheme, what stays in float and calibration frames are the same: from these
    the same file comes, byte by byte, on processors of one kind; where `leading_float` is left to
    be measured, as far as the clock decides alike.
    """
    scheme = scheme_for_here() if wanted.scheme == 'auto' else wanted.scheme
    if (out / MANIFEST).is_file():
        bundle = load_bundle(out)
        there = bundle.manifest.get('quantization')
        if (
            there is not None
            and there['source']['sha256'] == source.sha256
            and there['scheme'] == scheme
            and there['calibration'].get('float_share') == wanted.float_share
            and wanted.leading_float in (None, there['calibration'].get('leading_float', 0))
            and there['calibration']['sha256'] == calibration_sha256(images)
        ):
            return bundle
    bundle, _ = quantize_bundle(
        source,
        images,
        out,
        held_out=held_out,
        name=wanted.name(source.name),
        scheme=scheme,
        float_share=wanted.float_share,
        leading_float=wanted.leading_float,
        on_progress=progress,
    )
    return bundle


def evaluate_member(
    bundle: Bundle,
    test: Path,
    *,
    data_name: str,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Evaluate on the test set, write the result into the manifest, and return it."""
    detector = Detector(bundle)
    metrics, digest = evaluate(bundle, test, detector=detector, progress=progress)
    entry = {
        'net': MEMBER,
        **evaluation_record(metrics, data_name, digest, _frames(test)),
        **detector.execution.to_dict(),
    }
    record_evidence(bundle, 'evaluation', entry, keys=('net', 'data'))
    return metrics


def evaluate_control(
    control: Bundle,
    member: Bundle,
    test: Path,
    *,
    net: str,
    data_name: str,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Evaluate a control, write the result beside its member's as of `net`, and return it."""
    metrics, digest = evaluate(control, test, progress=progress)
    training = control.manifest['provenance']['training']
    entry = {
        'net': net,
        'cpu_seconds': training['cpu_seconds'],
        'steps': training['steps'],
        **evaluation_record(metrics, data_name, digest, _frames(test)),
    }
    record_evidence(member, 'evaluation', entry, keys=('net', 'data'))
    return metrics


def _frames(folder: Path) -> Fingerprints:
    return fingerprints(read_dataset(folder))


def summary(family: Family) -> str:
    """Return a Markdown table of what the manifests of a family say; '–' where nothing is said."""
    header = (
        'member | MMAC | parameters | AP50 [95 %] | AP50:95: | AP50 below 48 px | worst class'
        ' | control AP50 | short control AP50 | p50, one thread | × faster'
    )
    rows = []
    for bundle in family.members:
        evaluations = {each.get('net'): each for each in bundle.manifest['evaluation']}
        rows.append(
            (
                bundle.name,
                f'{bundle.cost.macs / 1e6:.0f}',
                f'{bundle.cost.parameters / 1e6:.2f} M',
                *_accuracy_cells(evaluations.get(MEMBER)),
                *(_ap50(evaluations.get(net)) for net in (CONTROL, SHORT_CONTROL)),
                *_latency_cells(bundle.manifest['latency']),
            )
        )
    return Table.under(header, rows).to_markdown()


def certificates(family: Family) -> str:
    """Return what is certified of each member in Markdown: seen, and the bound; '' of none."""
    found = {}
    for bundle in family.members:
        recorded = bundle.manifest['certificate']
        certificate = None if recorded is None else read_certificate(recorded)
        if isinstance(certificate, Certificate):
            found[bundle.name] = certificate
    if not found:
        return ''
    first = next(iter(found.values()))
    rows = [
        (name, *(_seen_and_bound(each.statements.get(kind)) for kind in first.statements))
        for name, each in found.items()
    ]
    columns = [
        ('member', ''),
        *((f'{each.verb} {each.of}', '') for each in first.statements.values()),
    ]
    notes = dict.fromkeys(line for each in found.values() for line in each.reach())
    return '\n\n'.join([*notes, Table(columns, rows).to_markdown()])


def _seen_and_bound(each: Statement | None) -> str:
    if each is None or each.rate is None:
        return '–'
    return f'{each.rate:.1%}, {each.bound_text}'


def _accuracy_cells(entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return ['–'] * 4
    found = {name: each['ap50'] for name, each in entry['per_class'].items()}
    found = {name: ap50 for name, ap50 in found.items() if ap50 is not None}  # that there are
    worst = min(found, key=found.__getitem__, default='–')
    return [
        _ap50(entry),
        f'{entry["ap50_95"]:.3f}',
        f'{entry["small"]["ap50"] or 0.0:.3f}',
        f'{worst} {found[worst]:.3f}' if found else '–',
    ]


def _ap50(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return '–'
    interval = entry['ap50_interval']
    text = '' if interval is None else f' [{interval[0]:.3f}, {interval[1]:.3f}]'
    return f'{entry["ap50"]:.3f}{text}'


def _latency_cells(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return ['–'] * 2
    interval = entries[-1]['speedup_interval']
    text = '' if interval is None else f' [{interval[0]:.2f}, {interval[1]:.2f}]'
    return [f'{entries[-1]["latency_ms"]["p50"]:.2f} ms', f'{entries[-1]["speedup"]:.2f}{text}']
