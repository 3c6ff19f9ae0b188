"""The page that opens the black box: one pruned network, layer by layer, with what is promised.

A single file without scripts that fetches nothing.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from pruned_perception._io import write_text
from pruned_perception.pruning.certificate import Certificate, FormerCertificate
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.plan import bound_text
from pruned_perception.pruning.prediction import Curve
from pruned_perception.report.charts import CUT, KEPT, Line, data_uri, error_chart, ramp
from pruned_perception.report.findings import Findings, LayerFinding

_COLORS = {'deterministic': '#2f6db3', 'random': '#c8541a'}


def write_report(findings: Findings, path: Path) -> None:
    """Write the page; raise PruningError where it cannot be written."""
    write_text(path, render(findings), error=PruningError)


def render(findings: Findings) -> str:
    """Return the page of what is known; what is not known is said to be missing."""
    template = Template(Path(__file__).with_name('page.html').read_text(encoding='utf-8'))
    layers = findings.layers()
    return template.substitute(
        title=html.escape(findings.name),
        lead=_lead(findings),
        cards=_cards(findings, layers),
        layers_text=_layers_text(findings),
        layers=_layers_table(findings, layers),
        channels=_channels(findings, layers),
        curves=_curves(findings, layers),
        bound_text=_bound_text(findings),
        certificate=_certificate(findings.certificate),
        comparison=_comparison(findings),
        facts=''.join(
            f'<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>'
            for name, value in _facts(findings)
        ),
        kept_whole=_kept_whole(findings),
    )


# -- the top ---------------------------------------------------------------------------------


def _lead(findings: Findings) -> str:
    plan = findings.plan
    asked = f', asked for {html.escape(plan.budget)}' if plan.budget else ''
    bounds = plan.bounds_text() if plan.errors else ''
    return (
        f'{html.escape(bounds[:1].upper() + bounds[1:])}{". " if bounds else ""}'
        f'{_macs(plan.macs)} of {_macs(plan.dense_macs)} multiply–accumulates are left{asked}: '
        f'channels ranked by <b>{html.escape(plan.criterion)}</b>, the budget divided by '
        f'<b>{html.escape(plan.allocation)}</b>, {html.escape(plan.selection)} selection.'
        f'{_earlier(findings)}'
    )


def _earlier(findings: Findings) -> str:
    """Return what came before this cut, of which alone the page speaks."""
    if not findings.earlier:
        return ''
    first, cuts = findings.earlier[0], len(findings.earlier)
    return (
        f' This is cut {cuts + 1}, of a network that had been cut and fine-tuned before; '
        f'{findings.plan.macs / first.dense_macs:.1%} are left of the {_macs(first.dense_macs)} '
        'in the beginning. Plan and bounds below are of this last cut.'
    )


def _cards(findings: Findings, layers: Sequence[LayerFinding]) -> str:
    plan = findings.plan
    kept = sum(len(each) for each in plan.kept.values())
    channels = sum(plan.channels.values())
    cards = [
        (f'{plan.macs / plan.dense_macs:.1%}', 'of the multiply–accumulates'),
        (
            f'{plan.parameters / plan.dense_parameters:.1%}',
            f'of the parameters: {plan.parameters:,} of {plan.dense_parameters:,}',
        ),
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
    if findings.certificate is not None:
        cards.append(_certificate_card(findings.certificate))
    return ''.join(
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(text)}</span></div>'
        for value, text in cards
    )


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


# -- layers ----------------------------------------------------------------------------------


def _layers_text(findings: Findings) -> str:
    if findings.sensitivity is None:
        return (
            '<p>A row for each group of coupled channels. With sensitivities there would be a row '
            'for each layer that reads them, with what is measured there.</p>'
        )
    found = findings.sensitivity
    where = (
        'at all positions' if found.positions is None else f'at {found.positions} positions each'
    )
    exact = 'exactly' if found.positions is None else 'estimated from below'
    return (
        '<p>A row for each layer that reads prunable channels. <b>S</b> is the sum of the '
        f'sensitivities ({html.escape(found.definition)}, {found.calibration.images} images '
        f'{where}: {exact}) of the c channels that it reads. S near 1: one channel’s worth of '
        'information, the layer is easily compressed. S near c: every channel is indispensable '
        'for some output on some image.</p>'
    )


def _layers_table(findings: Findings, layers: Sequence[LayerFinding]) -> str:
    reads = any(each.reads for each in layers)
    header = [
        'layer<small>and what it reads</small>' if reads else 'group',
        'channels<small>c</small>',
        'sum<small>S</small>',
        'compressible<small>S / c</small>',
        'kept<small>share of c</small>',
        'a priori<small>error</small>',
        'measured<small>mean</small>',
        'measured<small>largest</small>',
    ]
    rows = []
    for each in layers:
        total = ['–', '–']
        if each.total is not None:
            share = each.total / each.channels
            total = [f'{each.total:.2f}', f'{_bar(share)}<b>{share:.2f}</b>']
        kept = each.kept / each.channels
        rows.append(
            [
                html.escape(each.layer) + _small(' + '.join(each.reads)),
                str(each.channels),
                *total,
                f'{_bar(kept, "kept")}<b>{kept:.0%}</b>',
                _bound(each),
                _percent(each.mean),
                _percent(each.largest),
            ]
        )
    return _table(header, rows)


def _bound(layer: LayerFinding) -> str:
    if layer.bound is None:
        return '–'
    mark = '<span class="vacuous">vacuous</span>' if layer.vacuous else ''
    return f'{math.ceil(100 * layer.bound - 1e-9) / 100:.2f}{mark}' if layer.bound else '0'


def _channels(findings: Findings, layers: Sequence[LayerFinding]) -> str:
    if findings.sensitivity is None:
        return ''
    rows = []
    for each in layers:
        largest = max((value for value, _ in each.cells), default=0.0)
        about = (
            f'{each.layer}: {each.kept} of {each.channels} channels kept, largest sensitivity '
            f'{largest:.2f}'
        )
        rows.append(
            f'<span>{html.escape(each.layer)}</span>'
            f'<img alt="{html.escape(about)}" title="{html.escape(about)}" '
            f'src="{data_uri(each.cells)}"><span>{each.kept} / {each.channels}</span>'
        )
    return (
        '<section><h2>Channel by channel</h2><p>What each layer reads, a cell per channel, the '
        'most sensitive first. The darker, the larger a share of some output hangs on that channel '
        'alone. A row that darkens only at its left end needs few of its channels; orange far to '
        'the left is a channel that went although some image needs it.</p><div class="key">'
        f'<span><i class="ramp" style="background:{ramp(KEPT)}"></i>kept, sensitivity 0 … 1</span>'
        f'<span><i class="ramp" style="background:{ramp(CUT)}"></i>cut, sensitivity 0 … 1</span>'
        f'<span>square-root scale</span></div><div class="strips">{"".join(rows)}</div></section>'
    )


# -- curves ----------------------------------------------------------------------------------


def _curves(findings: Findings, layers: Sequence[LayerFinding]) -> str:
    if not findings.curves:
        return ''
    plan = findings.plan
    bounds = [each.bound for each in layers if each.bound is not None]
    mark = max(bounds) if bounds and max(bounds) > 0 else None
    charts = []
    for name, real in (
        ('macs', plan.macs / plan.dense_macs),
        ('parameters', plan.parameters / plan.dense_parameters),
    ):
        title = 'Multiply–accumulates' if name == 'macs' else 'Parameters'
        chart = error_chart(
            [_line(curve, name) for curve in findings.curves],
            real=real,
            mark=mark,
            x_label='error that every group may have',
            title=f'{title}: predicted share against error; the plan really has {real:.1%}',
        )
        charts.append(f'<figure><figcaption>{title}</figcaption>{chart}</figure>')
    keys = ''.join(
        f'<span><i style="background:{_COLORS[each.selection]}"></i>{_curve_name(each)}</span>'
        for each in findings.curves
    )
    dot = (
        f' The dot is the plan’s largest a-priori error ({plan.selection} selection); it lies on '
        'that curve where all errors are equal, right of it otherwise.'
        if mark is not None
        else ''
    )
    return (
        '<section><h2>Predicted and real size</h2><p>What is left of the network if every group '
        'may have the same a-priori error, computed from the sensitivities before anything was '
        f'cut. The dotted line is what the plan really has.{dot}</p>'
        f'<div class="key">{keys}</div><div class="pair">{"".join(charts)}</div></section>'
    )


def _line(curve: Curve, name: str) -> Line:
    dense = curve.dense_macs if name == 'macs' else curve.dense_parameters
    points = tuple((point.epsilon, getattr(point, name) / dense) for point in curve.points)
    return Line(_curve_name(curve), points, _COLORS[curve.selection])


def _curve_name(curve: Curve) -> str:
    if curve.selection == 'random':
        return f'random selection, δ = {curve.delta:g}, K = {curve.K:g}: expected size'
    return 'deterministic selection, on the calibration set'


# -- the third error, and others -------------------------------------------------------------


def _bound_text(findings: Findings) -> str:
    plan = findings.plan
    sampled = plan.positions is not None
    if plan.factors:
        origin = f'from {plan.K_images} other images' if plan.K_images else 'assumed, not shown'
        return (
            'Here it is the ε of Bernstein’s inequality, for a new image, if it exceeds no '
            f'sensitivity by more than the factor K = {plan.K:.3g} ({origin}); both together fail '
            f'with probability ≤ {plan.delta:g}.'
            + (' At sampled positions it is an estimate.' if sampled else '')
        )
    if sampled:
        return (
            'Here it is the sum of the sensitivities of what was cut: an estimate, from below, of '
            f'a bound, since they were measured at {plan.positions} positions an image; at all '
            'positions it would hold on the calibration set with certainty.'
        )
    return (
        'Here it is the sum of the sensitivities of what was cut: it holds on the calibration set '
        'with certainty.'
    )


def _certificate(certificate: Certificate | FormerCertificate | None) -> str:
    if certificate is None:
        return (
            '<p>There is none yet. <code>pruned-perception certify</code> runs both networks over '
            'drives that have served nothing else, and says what the pruned one misses.</p>'
        )
    words = ''.join(f'<p>{html.escape(line)}</p>' for line in certificate.paragraphs())
    return f'<div class="say">{words}</div>{_slices(certificate)}'


def _slices(certificate: Certificate | FormerCertificate) -> str:
    if isinstance(certificate, FormerCertificate) or not certificate.slices:
        return '<p>No slices of objects were declared.</p>'
    first = certificate.headline
    rows = [
        [
            html.escape(name),
            f'{sum(each.counts):,}',
            str(each.drives),
            '–' if each.rate is None else f'{each.rate:.1%}',
            f'{_bar(each.bound or 0.0)}<b>{each.bound_text}</b>',
        ]
        for name, each in certificate.slices.items()
    ]
    return (
        '<h3>Parts of the hold-out, declared beforehand</h3><p>It '
        f'{html.escape(f"{first.verb} … {first.of} ({first.terms})")}; all bounds of this table '
        f'hold together, at {100 * certificate.confidence:g}% confidence. Worst: '
        f'<b>{html.escape(str(certificate.worst_slice))}</b>.</p><div class="wide">'
        + _table(['slice', first.unit, f'{html.escape(certificate.unit)}s', 'seen', 'bound'], rows)
        + '</div>'
    )


def _comparison(findings: Findings) -> str:
    if findings.comparison is None:
        return ''
    try:
        return _comparison_section(findings.comparison, findings.plan.budget)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PruningError(f'comparison: not the table of a comparison: {error}') from error


def _comparison_section(comparison: Mapping[str, Any], budget: str | None) -> str:
    rows = list(comparison['rows'])
    same = [row for row in rows if row['budget'] == budget]
    shown = [row for row in rows if row['budget'] in (budget, '–')] if same else rows
    text = f'All at {html.escape(str(budget))}. ' if same else 'At the budgets in the table. '
    figure = html.escape(str(comparison['figure']))
    baseline = html.escape(str(comparison['baseline']))
    tested = any(row['test'] for row in shown)
    tuned = any(row['finetuning'] != '–' for row in shown)
    header = [
        'method',
        *([] if same else ['budget']),
        *(['fine-tuning'] if tuned else []),
        'seeds',
        'MACs',
        'parameters',
        *([f'{figure}<small>once pruned</small>'] if tuned else []),
        f'{figure}<small>{"fine-tuned" if tuned else "pruned"}</small>',
        f'difference<small>to {baseline}, 95%</small>',
        *([f'{figure}<small>test</small>'] if tested else []),
    ]
    best = max((float(row['after']['mean']) for row in shown), default=1.0)
    cells = [
        [
            html.escape(str(row['method'])),
            *([] if same else [html.escape(str(row['budget']))]),
            *([html.escape(str(row['finetuning']))] if tuned else []),
            str(len(row['seeds'])),
            f'{row["macs_share"]:.1%}',
            f'{row["params_share"]:.1%}',
            *([_mean(row['before'])] if tuned else []),
            f'{_bar(row["after"]["mean"] / best if best > 0 else 0.0)}{_mean(row["after"])}',
            _difference(row['difference']),
            *([_mean(row['test'])] if tested else []),
        ]
        for row in shown
    ]
    missing = list(comparison['missing'])
    note = f'<p>Not finished: {html.escape(", ".join(map(str, missing)))}.</p>' if missing else ''
    return (
        f'<section><h2>Beside other methods</h2><p>{text}± is the standard deviation over seeds; '
        'an interval that holds 0 is a tie.</p><div class="wide">'
        f'{_table(header, cells)}</div>{note}</section>'
    )


def _mean(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return '–'
    spread = '' if entry['deviation'] is None else f'<small>± {entry["deviation"]:.2g}</small>'
    return f'{entry["mean"]:.4g}{spread}'


def _difference(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return '–'
    return f'{entry["mean"]:+.3g}<small>{entry["low"]:+.3g} … {entry["high"]:+.3g}</small>'


# -- the end ---------------------------------------------------------------------------------


def _facts(findings: Findings) -> list[tuple[str, Any]]:
    plan = findings.plan
    facts: list[tuple[str, Any]] = [
        ('criterion', plan.criterion),
        ('allocation', plan.allocation),
        ('selection', f'{plan.selection}, multiples of {plan.round_to} channels'),
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


def _kept_whole(findings: Findings) -> str:
    if not findings.plan.not_pruned:
        return ''
    items = ''.join(
        f'<li><code>{html.escape(name)}</code>: {html.escape(why)}</li>'
        for name, why in findings.plan.not_pruned.items()
    )
    return f'<h3>Kept whole</h3><ul>{items}</ul>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; the first of a row names it."""
    head = ''.join(f'<th scope="col">{cell}</th>' for cell in header)
    body = ''.join(
        f'<tr><th scope="row">{row[0]}</th>'
        + ''.join(f'<td>{cell}</td>' for cell in row[1:])
        + '</tr>'
        for row in rows
    )
    return f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _bar(share: float, kind: str = '') -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar"><i class="{kind}" style="width:{width:.1f}%"></i></span>'


def _small(text: str) -> str:
    return f'<small>{html.escape(text)}</small>' if text else ''


def _percent(share: float | None) -> str:
    return '–' if share is None else f'{share:.1%}'


def _macs(count: int) -> str:
    return f'{count / 1e9:.2f} G' if count >= 1e9 else f'{count / 1e6:.3g} M'
