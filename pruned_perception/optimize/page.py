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

"""The page about a family: what was asked for, what came of it, where members fail, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruned_perception import _pages as pages
from pruned_perception._io import write_text
from pruned_perception._tables import UNKNOWN, Table
from pruned_perception.bundle import Bundle
from pruned_perception.pruning import Plan, Sensitivity, predict
from pruned_perception.pruning.certificate import Certificate
from pruned_perception.pruning.errors import PruningError
from pruned_perception.report.findings import Findings
from pruned_perception.report.page import write_report

DETAILS = 'report-{}.html'
"""Beside the page, layer by layer, of each member."""


@dataclass(frozen=True)
class LayerRow:
    """A group of channels that go together."""

    name: str
    channels: int
    compressible: float | None
    """S / c: near 0 easily compressed, near 1 every channel is needed."""
    kept: tuple[int | None, ...]
    """Channels of each member."""


def write_page(
    path: Path,
    *,
    findings: Mapping[str, Any],
    bundles: Sequence[Bundle],
    sensitivity: Sensitivity | None,
    records: Mapping[str, Mapping[str, Any] | None],
    quantised: Sequence[Mapping[str, Any]],
    certificates: Mapping[str, Certificate | str | None],
    pictures: Sequence[Mapping[str, Any]],
) -> None:
    """Write the page, and one for each pruned member that goes layer by layer.

    Args:
        path: of the page.
        findings: what `optimize` found, see `Outcome`.
        bundles: of the family, the parent first.
        sensitivity: what channels were measured by.
        records: of what was done to each member, see `LabelFreeRecord.to_dict`.
        quantised: what was measured of each network in 8 bits, also of those that do not join.
        certificates: of each member, or why there is none.
        pictures: see `judging.side_by_side`.

    Raises:
        UserError: it cannot be written.
    """
    in_float = [each for each in bundles if each.manifest.get('quantization') is None]
    plans = {each.name: plan for each in in_float if (plan := _plan(each)) is not None}
    details = {}
    for name, plan in plans.items():
        certificate = certificates.get(name)
        details[name] = DETAILS.format(name)
        write_report(
            Findings(
                name,
                plan,
                sensitivity=sensitivity,
                curves=() if sensitivity is None else (predict(sensitivity),),
                certificate=certificate if isinstance(certificate, Certificate) else None,
            ),
            path.with_name(details[name]),
        )
    write_text(
        path,
        pages.render(
            'optimize/page.html',
            findings=findings,
            cards=_cards(findings),
            members=_members(findings),
            recovery=_recovery(records),
            in_8_bits=_in_8_bits(quantised),
            layers=_layers(plans, sensitivity),
            plans=plans,
            details=details,
            certificates=_certificates(certificates),
            pictures=pictures,
            facts=_facts(findings, bundles[0]),
            command=run_command(path.parent, findings),
        ),
    )


def run_command(family: Path, findings: Mapping[str, Any]) -> str:
    """Return the command that runs the fastest member on the robot."""
    rows = findings['members']
    best = max(rows, key=lambda row: row['speedup'] or 0.0)
    return (
        f'ros2 launch pruned_perception perception.launch.py model:={family.resolve()} '
        f'member:={best["name"]} image:=/camera/image_raw'
    )


def _plan(bundle: Bundle) -> Plan | None:
    recorded = bundle.manifest['pruning']
    try:
        return None if recorded is None else Plan.from_dict(recorded)
    except PruningError:  # of another kind, as of a quantised member
        return None


def _cards(findings: Mapping[str, Any]) -> list[tuple[str, str]]:
    others = [row for row in findings['members'] if row['agreement'] is not None]
    cards = []
    for row in others:
        speed = UNKNOWN if row['speedup'] is None else f'{row["speedup"]:.2f}× faster'
        lost, shown = row['lost']
        text = (
            f'{row["name"]}: does not show {lost:,} of the {shown:,} detections of its parent, on '
            'frames that nothing was chosen on'
        )
        cards.append((speed, text))
    return cards


def _members(findings: Mapping[str, Any]) -> Table:
    rows = findings['members']
    labelled = any(row['ap50'] is not None for row in rows)
    columns = [
        ('member\nasked for', ''),
        ('MMAC', '.0f'),
        ('ONNX\nMiB', '.2f'),
        ('ms\none thread', '.2f'),
        ('× faster\npredicted', ''),
        ('agreement\npredicted', ''),
        ('not shown\nof the parent’s', ''),
        ('added\nof its own', ''),
        *([('AP50\nlabels', '.3f')] if labelled else []),
        ('certified\nlost, ≤', ''),
    ]
    cells = []
    for row in rows:
        predicted = row['predicted'] or {}
        agreed = UNKNOWN
        if row['agreement'] is not None:
            text = f'{row["agreement"]:.3f}{_noted(predicted.get("agreement"), ".3f")}'
            agreed = pages.bar(row['agreement'], text, 'kept')
        speed = UNKNOWN if row['speedup'] is None else f'{row["speedup"]:.2f}'
        cells.append(
            [
                row['name'] + (f'\n{row["asked"]}' if row['asked'] else ''),
                row['macs'] / 1e6,
                row['bytes'] / 2**20,
                row['ms'],
                f'{speed}{_noted(predicted.get("speedup"), ".2f")}',
                agreed,
                _of(row['lost']),
                _of(row['added']),
                *([row['ap50']] if labelled else []),
                UNKNOWN if row['certified'] is None else f'{row["certified"]:.1%}',
            ]
        )
    return Table(columns, cells)


def _noted(value: float | None, form: str) -> str:
    return '' if value is None else f'\n{value:{form}}'


def _of(pair: Sequence[int] | None) -> str:
    if pair is None:
        return UNKNOWN
    events, every = pair
    return f'{events:,} of {every:,}' + (f'\n{events / every:.1%}' if every else '')


def _recovery(records: Mapping[str, Mapping[str, Any] | None]) -> Table | None:
    """Return what each step of each member brought."""
    columns = [
        ('member, cut', ''),
        ('MACs\nleft', '.1%'),
        ('cut\nagreement', '.3f'),
        ('refitted\nagreement', '.3f'),
        ('taught\nagreement', '.3f'),
        ('cut\nAP50', '.3f'),
        ('refitted\nAP50', '.3f'),
        ('taught\nAP50', '.3f'),
        ('steps\nof teaching', ',d'),
        ('CPU\nminutes', '.1f'),
        ('went on with', ''),
    ]
    cells: list[list[Any]] = []
    for name, record in records.items():
        if record is None:
            continue
        for number, stage in enumerate(record['stages'], start=1):
            found = [stage['cut'], stage['refitted'], stage['taught']]
            cells.append(
                [
                    f'{name}, {number} of {len(record["stages"])}',
                    stage['macs'] / record['dense_macs'],
                    *(None if each is None else each['agreement'] for each in found),
                    *(None if each is None else each['ap50'] for each in found),
                    stage['steps'],
                    stage['cpu_seconds'] / 60,
                    stage['kept'],
                ]
            )
    return Table(columns, cells) if cells else None


def _in_8_bits(quantised: Sequence[Mapping[str, Any]]) -> Table | None:
    columns = [
        ('network', ''),
        ('× faster\nthan in float', '.2f'),
        ('agreement\nwith it', '.3f'),
        ('layers', 'd'),
        ('in float', 'd'),
        ('scheme', ''),
        ('arithmetic', ''),
        ('', ''),
    ]
    cells = [
        [
            each['name'],
            each['speedup'],
            each['agreement'],
            each['layers'],
            len(each['float_layers']),
            each['scheme'],
            each['arithmetic'],
            'joins' if each['joins'] else 'too slow or different',
        ]
        for each in quantised
    ]
    return Table(columns, cells) if cells else None


def _layers(plans: Mapping[str, Plan], sensitivity: Sensitivity | None) -> list[LayerRow]:
    if not plans:
        return []
    first = next(iter(plans.values()))
    rows = []
    for name, channels in first.channels.items():
        compressible = None
        if sensitivity is not None and name in sensitivity.values:
            compressible = float(sensitivity.values[name].sum()) / channels
        kept = tuple(
            len(plan.kept[name]) if name in plan.kept and plan.channels[name] == channels else None
            for plan in plans.values()
        )
        rows.append(LayerRow(name, channels, compressible, kept))
    return rows


def _certificates(found: Mapping[str, Certificate | str | None]) -> list[tuple[str, list[str]]]:
    """Return a title and paragraphs of each; the same reason of all stands there once."""
    reasons = {each for each in found.values() if isinstance(each, str)}
    if len(reasons) == 1 and len(set(map(type, found.values()))) == 1:
        return [('', [reasons.pop()])]
    return [
        (name, each.paragraphs() if isinstance(each, Certificate) else [each])
        for name, each in found.items()
        if each is not None
    ]


def _facts(findings: Mapping[str, Any], parent: Bundle) -> list[tuple[str, str]]:
    frames = findings['frames']
    return [
        ('detector', str(findings['detector'])),
        ('images', ', '.join(findings['images'])),
        (
            'frames',
            f'{frames["fit"]} fitted to, {frames["choose"]} chosen by, {frames["certify"]} that '
            f'nothing was chosen on; {findings["drives"]} drives, split '
            f'{"by drives" if findings["by_drives"] else "in time"}',
        ),
        ('recipe', f'{findings["recipe"]}, {findings["minutes"]:g} minutes of teaching a member'),
        ('seed', str(findings['seed'])),
        ('parent', f'SHA-256 {parent.sha256}'),
        ('provenance', str(parent.manifest['provenance']['tool'])),
    ]
