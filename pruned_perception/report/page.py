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

"""The page that opens the black box: one pruned network, layer by layer, with what is promised.

A single file without scripts that fetches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pruned_perception import _pages as pages
from pruned_perception._io import write_text
from pruned_perception._tables import UNKNOWN, Table
from pruned_perception.pruning.certificate import Certificate, FormerCertificate
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.plan import bound_text
from pruned_perception.pruning.prediction import Curve
from pruned_perception.report.before_after import Pair
from pruned_perception.report.charts import CUT, KEPT, SIZE, Line, error_chart, strip
from pruned_perception.report.findings import Findings, LayerFinding

_COLORS = {'deterministic': 'var(--first)', 'random': 'var(--second)'}


def write_report(findings: Findings, path: Path, pictures: Sequence[Pair] = ()) -> None:
    """Write the page; raise PruningError where it cannot be written."""
    write_text(path, render(findings, pictures), error=PruningError)


def render(findings: Findings, pictures: Sequence[Pair] = ()) -> str:
    """Return the page of what is known; what is not known is said to be missing.

    `pictures`: frames before and after, see `before_after`.
    """
    layers = findings.layers()
    bounds = [each.bound for each in layers if each.bound is not None]
    mark = max(bounds, default=0.0) or None
    certificate = findings.certificate
    return pages.render(
        'report/page.html',
        findings=findings,
        layers=layers,
        judged=_judged(findings),
        figures=_figures(findings, layers),
        pictures=pictures,
        bounded=any(0 < bound < 1 for bound in bounds) or not any(bounds),
        measured=any(each.mean is not None for each in layers),
        ramps={'kept': KEPT, 'cut': CUT},
        strip=strip,
        mark=mark,
        charts=_charts(findings, mark),
        slices=certificate.slices if isinstance(certificate, Certificate) else {},
        up=_up,
        **_comparison(findings),
        made=_facts(findings),
        **SIZE,
    )


def _judged(findings: Findings) -> list[tuple[str, str]]:
    """Return what the page begins with: what users judge by, against the dense network."""
    plan, first, beside = findings.plan, (*findings.earlier, findings.plan)[0], findings.against
    macs, dense_macs = plan.macs, first.dense_macs
    parameters, dense_parameters = plan.parameters, first.dense_parameters
    dense, size = 'the dense network', ''
    if beside is not None:
        macs, dense_macs = beside.macs, beside.dense_macs
        parameters, dense_parameters = beside.parameters, beside.dense_parameters
        dense = beside.dense
        size = f'; {beside.size / 2**20:.2f} MiB for {beside.dense_size / 2**20:.2f}'
    cards = [
        (
            f'{macs / dense_macs:.1%} of the MACs',
            f'{pages.macs(macs)} for the {pages.macs(dense_macs)} of {dense}',
        ),
        (
            f'{parameters / dense_parameters:.1%} of the parameters',
            f'{parameters:,} for {dense_parameters:,}{size}',
        ),
    ]
    if beside is not None and beside.speedup is not None:
        interval = (
            ''
            if beside.speedup_interval is None
            else ' [{:.2f}, {:.2f}]'.format(*beside.speedup_interval)
        )
        ms = '' if beside.ms is None else f'{beside.ms:.1f} ms a run, '
        cards.append(
            (
                f'{beside.speedup:.2f} × as fast',
                f'as {dense}{interval}: {ms}the engine alone, {beside.machine}',
            )
        )
    if beside is not None and (accuracy := beside.accuracy) is not None:
        cards.append(
            (
                f'AP50 {accuracy.ap50:.3f}{_interval(accuracy.interval)}',
                f'{dense}: {accuracy.dense_ap50:.3f}{_interval(accuracy.dense_interval)}; '
                f'{accuracy.data}, {accuracy.images:,} frames, 95 % intervals',
            )
        )
    if findings.certificate is not None:
        cards.append(_certificate_card(findings.certificate))
    return cards


def _interval(interval: tuple[float, float] | None) -> str:
    return '' if interval is None else f' [{interval[0]:.3f}, {interval[1]:.3f}]'


def _figures(findings: Findings, layers: Sequence[LayerFinding]) -> list[tuple[str, str]]:
    """Return figures of the cut itself: values, and what they are."""
    plan = findings.plan
    kept = sum(len(each) for each in plan.kept.values())
    channels = sum(plan.channels.values())
    cards = [
        (f'{kept:,} of {channels:,}', f'channels kept, in {len(plan.kept)} groups'),
        _bound_card(layers),
    ]
    if findings.measured is not None and (errors := _measured(findings, layers)):
        mean = sum(errors.values()) / len(errors)
        worst = max(errors, key=lambda layer: errors[layer])
        cards.append(
            (
                f'{mean:.1%}',
                f'of the contributions lost on the calibration set, mean over layers; worst '
                f'{worst}: {errors[worst]:.1%}',
            )
        )
    return cards


def _measured(findings: Findings, layers: Sequence[LayerFinding]) -> dict[str, float]:
    """Return the mean errors of the layers shown, or of all that were measured."""
    assert findings.measured is not None
    shown = {each.layer: each.mean for each in layers if each.mean is not None}
    return shown or {each.layer: each.mean for each in findings.measured.consumers}


def _bound_card(layers: Sequence[LayerFinding]) -> tuple[str, str]:
    bounds = [each.bound for each in layers if each.bound is not None]
    if not bounds:
        return 'none', 'a-priori bound: it needs sensitivities'
    vacuous = sum(bound >= 1 for bound in bounds)
    if vacuous:
        return (
            f'vacuous in {vacuous} of {len(bounds)}',
            'layers: there the a-priori bound promises nothing',
        )
    text = 'a-priori error of every layer, relative to its contributions'
    return f'≤ {bound_text(max(bounds))}', text


def _certificate_card(certificate: Certificate | FormerCertificate) -> tuple[str, str]:
    if isinstance(certificate, FormerCertificate):
        return 'frames only', 'an earlier kind of certificate, with a dead-band: see below'
    first = certificate.headline
    return (
        f'{first.verb} {first.bound_text}',
        f'{first.of} ({first.terms}), proven at {100 * certificate.confidence:g}%',
    )


def _charts(findings: Findings, mark: float | None) -> list[dict[str, Any]]:
    """Return the charts of predicted against real size, none where nothing is predicted."""
    if not findings.curves:
        return []
    plan = findings.plan
    charts = []
    for name, title in (('macs', 'Multiply–accumulates'), ('parameters', 'Parameters')):
        real = getattr(plan, name) / getattr(plan, f'dense_{name}')
        charts.append(
            {
                **error_chart(
                    [_line(each, name) for each in findings.curves], real=real, mark=mark
                ),
                'title': title,
                'about': f'{title}: predicted share against error; the plan really has {real:.1%}',
                'x_label': 'error that every group may have',
            }
        )
    return charts


def _line(curve: Curve, name: str) -> Line:
    dense = curve.dense_macs if name == 'macs' else curve.dense_parameters
    points = tuple((point.epsilon, getattr(point, name) / dense) for point in curve.points)
    return Line(_curve_name(curve), points, _COLORS[curve.selection])


def _curve_name(curve: Curve) -> str:
    if curve.selection == 'random':
        return f'random selection, δ = {curve.delta:g}, K = {curve.K:g}: expected size'
    return 'deterministic selection, on the calibration set'


def _comparison(findings: Findings) -> dict[str, Any]:
    """Return the table of methods at the plan's budget, or at all where it has no such row."""
    comparison = findings.comparison
    if comparison is None:
        return {'comparison': None}
    try:
        rows = list(comparison['rows'])
        same = any(row['budget'] == findings.plan.budget for row in rows)
        if same:
            rows = [row for row in rows if row['budget'] in (findings.plan.budget, UNKNOWN)]
        return {
            'comparison': _methods(comparison, rows, same),
            'same_budget': same,
            'missing': [str(each) for each in comparison['missing']],
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PruningError(f'comparison: not the table of a comparison: {error}') from error


def _methods(
    comparison: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], same_budget: bool
) -> Table:
    figure = comparison['figure']
    tested = any(row['test'] for row in rows)
    tuned = any(row['finetuning'] != UNKNOWN for row in rows)
    headers = [
        'method',
        *([] if same_budget else ['budget']),
        *(['fine-tuning'] if tuned else []),
        'seeds',
        'MACs',
        'parameters',
        *([f'{figure}\nonce pruned'] if tuned else []),
        f'{figure}\n{"fine-tuned" if tuned else "pruned"}',
        f'difference\nto {comparison["baseline"]}, 95%',
        *([f'{figure}\ntest'] if tested else []),
    ]
    best = max((float(row['after']['mean']) for row in rows), default=1.0)
    cells = [
        [
            str(row['method']),
            *([] if same_budget else [str(row['budget'])]),
            *([str(row['finetuning'])] if tuned else []),
            len(row['seeds']),
            f'{row["macs_share"]:.1%}',
            f'{row["params_share"]:.1%}',
            *([_mean(row['before'])] if tuned else []),
            pages.bar(row['after']['mean'] / best if best > 0 else 0.0, _mean(row['after'])),
            _difference(row['difference']),
            *([_mean(row['test'])] if tested else []),
        ]
        for row in rows
    ]
    return Table([(each, '') for each in headers], cells)


def _mean(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return UNKNOWN
    spread = '' if entry['deviation'] is None else f'\n± {entry["deviation"]:.2g}'
    return f'{entry["mean"]:.4g}{spread}'


def _difference(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return UNKNOWN
    return f'{entry["mean"]:+.3g}\n{entry["low"]:+.3g} … {entry["high"]:+.3g}'


def _facts(findings: Findings) -> list[tuple[str, Any]]:
    plan = findings.plan
    facts: list[tuple[str, Any]] = [
        *([('bounds', plan.bounds_text())] if plan.errors else []),
        ('criterion', plan.criterion),
        ('allocation', plan.allocation),
        (
            'selection',
            f'{plan.selection}, multiples of {plan.block_text()} channels',
        ),
        ('budget', plan.budget or 'the widths of another plan'),
        ('seed', plan.seed),
        ('δ, K', f'{plan.delta:g}, {plan.K:g}'),
        ('inputs', ', '.join(f'{each.dtype} {list(each.shape)}' for each in plan.inputs)),
    ]
    sets = [('sensitivities of the plan', plan.calibration)]
    if findings.sensitivity is not None:
        sets.append(('sensitivities shown', findings.sensitivity.calibration))
    if findings.measured is not None:
        sets.append(('measured errors', findings.measured.calibration))
    for record in dict.fromkeys(each for _, each in sets if each is not None):
        names = ', '.join(name for name, each in sets if each == record)
        facts.append((names, f'{record.images} images, SHA-256 {record.sha256}'))
    if isinstance(certificate := findings.certificate, Certificate):
        versions = (f'{name} {value}' for name, value in certificate.versions.items())
        facts.append(('certified with', ', '.join(versions)))
    return facts


def _up(bound: float) -> str:
    """Return a bound with two decimals, never rounded below itself."""
    return f'{math.ceil(100 * bound - 1e-9) / 100:.2f}' if bound else '0'
