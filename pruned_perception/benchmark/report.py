"""The demonstration's pictures, plots and page, and its summary for a terminal."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.accuracy import detections
from pruned_perception.benchmark.bag import read_bag, stamp_of
from pruned_perception.benchmark.demo import BAG, IMAGE, LIVE, Demonstration
from pruned_perception.benchmark.results import PATH, WARM_UP
from pruned_perception.errors import UserError
from pruned_perception.images import read_image
from pruned_perception.inference.drawing import draw

FRAMES, PAGE = 'frames', 'report.html'
"""Names in the output folder."""

_COLORS = ('#2f6db3', '#d9772b')  # the page's own: dense, small
_LIVE_COLOR = '#8a97a6'
_STAGE_COLORS = ('#c9d3df', '#a9b8c9', '#7fb2e5', '#2f6db3', '#5fb59a', '#8fd0b5', '#e0c88a')
_MARGIN, _GAP = 34, 12  # height of the captions, width between the pictures; pixels


def write_report(demonstration: Demonstration, *, pictures: int = 6) -> Path:
    """Write annotated frames and the page into the demonstration's folder; return the page.

    Raises:
        UserError: matplotlib is not installed, or the folder cannot be written.
    """
    try:
        frames = annotate(demonstration, pictures)
        page = demonstration.folder / PAGE
        page.write_text(render(demonstration, frames), encoding='utf-8')
    except OSError as error:
        raise UserError(f'cannot write to {demonstration.folder}: {error.strerror}') from error
    return page


# -- pictures --------------------------------------------------------------------------------


def annotate(demonstration: Demonstration, count: int) -> list[Path]:
    """Write `count` frames of the replays as PNG, one model beside the other; return their paths.

    They are spread evenly over the frames that all replays answered.
    """
    replays = _replays(demonstration)
    labels = demonstration.document['labels']
    runs = [demonstration.runs[section['name']] for section in replays]
    common = sorted(set.intersection(*(set(run.boxes) for run in runs)))
    chosen = {common[i] for i in np.linspace(0, len(common) - 1, count + 2).astype(int)[1:-1]}
    folder = demonstration.folder / FRAMES
    folder.mkdir(exist_ok=True)
    for old in folder.glob('frame_*.png'):
        old.unlink()
    paths = []
    for stamp, image in _images(demonstration.folder / BAG, chosen):
        panels = [
            _captioned(
                draw(image, detections(run.boxes[stamp], labels), labels, order='bgr'),
                f'{section["name"]}: {len(run.boxes[stamp])} found',
            )
            for section, run in zip(replays, runs, strict=True)
        ]
        path = folder / f'frame_{common.index(stamp):04d}.png'
        done, data = cv2.imencode('.png', _beside(panels))
        assert done
        path.write_bytes(data.tobytes())
        paths.append(path)
    return paths


def _images(bag: Path, stamps: Iterable[int]) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    """Yield stamp and image (bgr) of the images with these stamps."""
    from pruned_perception.benchmark.bag import deserialise
    from pruned_perception.inference.encodings import image_from_message

    wanted = set(stamps)
    for record in read_bag(bag, [IMAGE]):
        if (stamp := stamp_of(record.data)) in wanted:
            image, order = image_from_message(deserialise(record))
            yield stamp, np.ascontiguousarray(image[..., ::-1] if order == 'rgb' else image)


def _beside(panels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)]
    return np.hstack(parts[1:])


def _captioned(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    bar = np.full((_MARGIN, image.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (51, 39, 29), 1, cv2.LINE_AA)
    return np.vstack([bar, image])


# -- plots -----------------------------------------------------------------------------------


def _replays(demonstration: Demonstration) -> list[dict[str, Any]]:
    return [section for section in demonstration.document['runs'] if section['name'] != LIVE]


def _color(section: dict[str, Any], replays: Sequence[dict[str, Any]]) -> str:
    return _LIVE_COLOR if section['name'] == LIVE else _COLORS[replays.index(section)]


def _title(section: dict[str, Any]) -> str:
    return f'{section["model"]}, live' if section['name'] == LIVE else section['name']


def _figure(height: float) -> tuple[Any, Any]:
    """Return a figure and its axes in the page's style; height in inches, of a width of 9.6."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "the report needs matplotlib: pip install 'pruned_perception[bench]'"
        ) from error
    figure = Figure(figsize=(9.6, height), layout='constrained')
    axes = figure.add_subplot()
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    for side in ('left', 'bottom'):
        axes.spines[side].set_color('#b8c2cd')
    axes.tick_params(colors='#5b6878', labelsize=10)
    axes.grid(color='#e7ecf1', linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend_above(axes: Any, columns: int) -> None:
    size = 9 if columns > 4 else 10
    axes.legend(
        loc='lower center', bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=size
    )


def _svg(figure: Any, title: str) -> str:
    """Return the figure as an SVG element that says what it shows to those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None}, transparent=True)
    text = buffer.getvalue()
    svg = text[text.index('<svg') :]
    return svg.replace('<svg', f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def plot_stages(demonstration: Demonstration) -> str:
    """Return stacked bars of a typical frame's stages, one per run."""
    sections = demonstration.document['runs'][::-1]
    figure, axes = _figure(0.75 + 0.62 * len(sections))
    names = [_title(section) for section in sections]
    typical = [
        demonstration.runs[section['name']].frames.without_warm_up().typical(PATH)
        for section in sections
    ]
    left = np.zeros(len(sections))
    for stage, color in zip(PATH, _STAGE_COLORS, strict=True):
        # A subscriber can have the message before publish() returns: delivery below 0.
        width = np.array([max(each[stage], 0.0) for each in typical])
        axes.barh(names, width, left=left, color=color, height=0.62, label=stage.replace('_', ' '))
        left += width
    for row, parts in enumerate(typical):
        axes.text(
            left[row] + 0.01 * left.max(),
            row,
            f'{sum(parts.values()):.1f} ms, of it inference {parts["inference"]:.1f}',
            va='center',
            color='#1d2733',
            fontsize=10,
        )
    axes.set_xlim(0, left.max() * 1.32)
    axes.set_xlabel('ms', color='#5b6878')
    axes.grid(axis='y', visible=False)
    _legend_above(axes, len(PATH))
    return _svg(figure, 'Stages of a typical frame, per run')


def plot_spread(demonstration: Demonstration) -> str:
    """Return the empirical distribution of end-to-end latency, one line per run."""
    figure, axes = _figure(3.6)
    replays = _replays(demonstration)
    upper = 0.0
    for section in demonstration.document['runs']:
        frames = demonstration.runs[section['name']].frames.without_warm_up()
        values = np.sort(frames.quantities['e2e_receive'])
        values = values[np.isfinite(values)]
        color = _color(section, replays)
        share = np.arange(1, len(values) + 1) / len(values)
        line = (0, (2, 1.5)) if section['name'] == LIVE else 'solid'
        axes.step(values, 100 * share, color=color, linewidth=2, linestyle=line, where='post')
        summary = section['latency_ms']['e2e_receive']
        points = [summary[key] for key in ('p50', 'p90', 'p99')]
        text = ' / '.join(f'{each:.1f}' for each in points)
        axes.plot(points, [50, 90, 99], 'o', color=color, label=f'{_title(section)}: {text} ms')
        upper = max(upper, summary['p99'])
    axes.set_xlim(0, upper * 1.25)
    axes.set_ylim(0, 102)
    axes.set_xlabel('end to end, ms', color='#5b6878')
    axes.set_ylabel('frames within, %', color='#5b6878')
    axes.legend(title='p50 / p90 / p99', loc='lower right', frameon=False, fontsize=10)
    return _svg(figure, 'Distribution of end-to-end latency')


def plot_timeline(demonstration: Demonstration) -> str:
    """Return end-to-end latency over the time of the drive, a dot per frame of the replays."""
    figure, axes = _figure(3.2)
    for section, color in zip(_replays(demonstration), _COLORS, strict=False):
        frames = demonstration.runs[section['name']].frames
        values = frames.quantities['e2e_receive']
        axes.plot(frames.received_s, values, color=color, linewidth=0.8, alpha=0.35)
        axes.plot(frames.received_s, values, '.', color=color, markersize=4, label=section['name'])
    axes.set_ylim(bottom=0)
    axes.set_xlabel('time of the replay, s', color='#5b6878')
    axes.set_ylabel('end to end, ms', color='#5b6878')
    _legend_above(axes, 2)
    return _svg(figure, 'End-to-end latency of every frame')


def plot_classes(demonstration: Demonstration) -> str:
    """Return AP50 per class, a bar per replayed model."""
    replays = _replays(demonstration)
    per_class = replays[0]['accuracy']['per_class']
    labels = [label for label, each in per_class.items() if each['boxes']]
    figure, axes = _figure(3.2)
    width = 0.8 / len(replays)
    for index, (section, color) in enumerate(zip(replays, _COLORS, strict=False)):
        values = [section['accuracy']['per_class'][label]['ap50'] or 0.0 for label in labels]
        at = np.arange(len(labels)) + (index - (len(replays) - 1) / 2) * width
        axes.bar(at, values, width * 0.92, color=color, label=section['name'])
    ticks = [f'{label.replace("_", " ")}\n({per_class[label]["boxes"]})' for label in labels]
    axes.set_xticks(range(len(labels)), ticks)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel('AP50', color='#5b6878')
    axes.grid(axis='x', visible=False)
    _legend_above(axes, 2)
    return _svg(figure, 'AP50 per class')


# -- the page --------------------------------------------------------------------------------


def render(demonstration: Demonstration, pictures: Sequence[Path]) -> str:
    """Return the page; everything is inside it, nothing is fetched from anywhere."""
    template = Template(Path(__file__).with_name('report.html').read_text(encoding='utf-8'))
    return template.substitute(
        lead=_lead(demonstration),
        cards=_cards(demonstration),
        table=_table(demonstration),
        table_note=_TABLE_NOTE,
        stages=plot_stages(demonstration),
        spread=plot_spread(demonstration),
        timeline=plot_timeline(demonstration),
        classes=plot_classes(demonstration),
        frames=''.join(_figure_element(path) for path in pictures),
        notes=''.join(f'<li>{note}</li>' for note in _notes(demonstration)),
        facts=''.join(
            f'<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>'
            for name, value in _facts(demonstration)
        ),
    )


def _lead(demonstration: Demonstration) -> str:
    replays = _replays(demonstration)
    frames = replays[0]['frames']['sent']
    names = [
        f'<b class="{css}">{html.escape(section["name"])}</b>'
        for section, css in zip(replays, ('first', 'second'), strict=False)
    ]
    return (
        f'A robot drove through a simulated hall while its camera was recorded. The same {frames} '
        f'images were then played to a ROS 2 node running {" and, again, running ".join(names)}, '
        'each process on its own, over DDS. This page shows what a subscriber received: when, and '
        'how right it was.'
    )


def _cards(demonstration: Demonstration) -> str:
    replays = _replays(demonstration)
    first, last = replays[0], replays[-1]
    cost = {model['member']: model['macs'] for model in demonstration.document['models']}
    lost = sum(section['frames']['middleware_loss'] or 0 for section in replays)
    sent = sum(section['frames']['sent'] for section in replays)

    def median(section: dict[str, Any], quantity: str) -> float:
        return float(section['latency_ms'][quantity]['p50'])

    ratio = median(first, 'inference') / median(last, 'inference')
    accuracy = [section['accuracy']['ap50'] for section in (first, last)]
    cards = [
        (
            f'{median(first, "e2e_receive"):.1f} → {median(last, "e2e_receive"):.1f} ms',
            'end to end, median',
        ),
        (
            f'{median(first, "inference"):.1f} → {median(last, "inference"):.1f} ms',
            f'inference, median: {ratio:.1f} times as fast',
        ),
        (' → '.join(_number(each, 3) for each in accuracy), 'AP50 of the published boxes'),
        (
            f'{_macs(cost[first["name"]])} → {_macs(cost[last["name"]])}',
            'multiply–accumulates a frame',
        ),
        (f'{lost} of {sent}', 'frames lost by the middleware'),
    ]
    return ''.join(
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(text)}</span></div>'
        for value, text in cards
    )


_TABLE_NOTE = (
    'Times in milliseconds, p50 / p90 / p99; below them the 95 % bootstrap interval of p50. The '
    'replays are of the same frames, without the renderer; the live run shares the machine with '
    'the renderer and the recorder.'
)

_ROWS = (
    ('e2e_receive', 'end to end, at the subscriber'),
    ('overhead', 'of it not inference'),
    ('inference', 'inference'),
    ('preprocess', 'preprocess'),
    ('postprocess', 'postprocess'),
    ('publish', 'publish'),
    ('queue_age', 'wait in the node'),
    ('age_at_receipt', 'transport to the node'),
)
_FRAME_ROWS = (
    ('sent', 'sent'),
    ('published', 'published'),
    ('superseded', 'superseded by a newer frame'),
    ('stale', 'too old'),
    ('error', 'errors'),
    ('middleware_loss', 'lost by the middleware'),
)


def summary_rows(demonstration: Demonstration) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the summary; a row of one cell is a heading."""
    sections = demonstration.document['runs']
    header = ['', *(_title(section) for section in sections)]
    rows = [['latency, ms (p50 / p90 / p99)']]
    for quantity, name in _ROWS:
        summaries = [section['latency_ms'].get(quantity) for section in sections]
        cells = [
            ' / '.join(_number(each[key], 1) for key in ('p50', 'p90', 'p99')) if each else '–'
            for each in summaries
        ]
        rows.append([name, *cells])
    rows.append(['frames'])
    for key, name in _FRAME_ROWS:
        rows.append([name, *(_number(section['frames'].get(key), 0) for section in sections)])
    rows.append(['accuracy against the ground truth'])
    accuracies = [section['accuracy'] for section in sections]
    rows.append(['frames compared', *(_number(each['images'], 0) for each in accuracies)])
    for key, name in (('ap50', 'AP50'), ('ap50_95', 'AP50:95')):
        intervals = [each[f'{key}_interval'] for each in accuracies]
        cells = [
            _number(each[key], 3) + (f' ({low:.3f}–{high:.3f})' if (low is not None) else '')
            for each, (low, high) in zip(
                accuracies, (interval or (None, None) for interval in intervals), strict=True
            )
        ]
        rows.append([name, *cells])
    rows.append(['recall', *(_number(each['recall'], 3) for each in accuracies)])
    rows.append(['precision', *(_number(each['precision'], 3) for each in accuracies)])
    small = [each['small'] for each in accuracies]
    rows.append(
        [
            f'recall, boxes under {small[0]["longer_side_below_px"]} px',
            *(f'{_number(each["recall"], 3)} of {each["boxes"]}' for each in small),
        ]
    )
    rows.append(['resources'])
    rows.append(['CPU of the node, % of a core', *(_number(s['cpu_percent'], 0) for s in sections)])
    rows.append(['memory of the node, MiB', *(_number(s['rss_mib'], 0) for s in sections)])
    return header, rows


def _table(demonstration: Demonstration) -> str:
    header, rows = summary_rows(demonstration)
    sections = demonstration.document['runs']
    intervals = {
        name: [section['latency_ms'].get(quantity, {}).get('p50_interval') for section in sections]
        for quantity, name in _ROWS
    }
    lines = ['<table><thead><tr>']
    for section, name in zip([None, *sections], header, strict=True):
        note = f'<small>{html.escape(section["description"])}</small>' if section else ''
        lines.append(f'<th>{html.escape(name)}{note}</th>')
    lines.append('</tr></thead><tbody>')
    for row in rows:
        if len(row) == 1:
            lines.append(f'<tr class="head"><td colspan="{len(header)}">{row[0]}</td></tr>')
            continue
        cells = [html.escape(cell) for cell in row]
        for index, interval in enumerate(intervals.get(row[0], ())):
            if interval:
                cells[index + 1] += f'<small>{interval[0]:.1f} … {interval[1]:.1f}</small>'
        lines.append('<tr>' + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>')
    lines.append('</tbody></table>')
    return ''.join(lines)


def _notes(demonstration: Demonstration) -> list[str]:
    replays = _replays(demonstration)
    late = max(section['player_behind_ms'] for section in replays)
    accuracy = replays[0]['accuracy']
    return [
        '<b>End to end</b> runs from the image’s header stamp to the callback of a subscriber in '
        'another process. In the replays the stamp is the moment of publication by the player '
        '(<code>clock: restamped</code>); live it is the moment at which the simulated camera had '
        'its image (<code>clock: system</code>). Exposure, read-out and rendering are before '
        'the stamp, and not included.',
        'All processes ran on one machine, images through shared memory. A network between '
        'camera and node comes on top.',
        f'The first {WARM_UP} frames of each run are left out of the latencies, declared as '
        'warm-up. One run per model: the intervals are over frames, and do not cover how other '
        'load on the machine differs from one minute to the next. Ratios of inference are '
        'measured interleaved by <code>pruned-perception benchmark</code>.',
        f'The player kept the recorded pace; at worst it was {late:.0f} ms late with a frame: '
        'the new stamp is that of the real publication, so this is in no latency.',
        'Accuracy is that of the boxes the node <i>published</i>, at its score threshold of '
        f'{accuracy["score_threshold"]:g}: AP here is lower than over all candidates. It is one '
        f'drive of {accuracy["images"]} frames; intervals are over blocks of 2 s. The figures on '
        'the fixed test set are in the models’ manifests.',
        'Both models are judged on the frames that both answered. Energy was not measured.',
    ]


def _facts(demonstration: Demonstration) -> list[tuple[str, Any]]:
    document = demonstration.document
    machine = document['environment']
    versions = ', '.join(f'{name} {value}' for name, value in machine['versions'].items())
    topics = ', '.join(f'{name} {count}' for name, count in document['input']['topics'].items())
    lost = sum(count or 0 for count in document['input']['lost_while_recording'].values())
    return [
        ('made by', f'{document["tool"]}: {document["command"]}, {document["created"]}'),
        ('CPU', f'{machine["cpu"]}, {machine["cores"]} cores'),
        ('load before', ', '.join(map(str, machine['load_average']))),
        ('system', f'{machine["os"]}, Python {machine["python"]}'),
        ('versions', versions),
        *(document['configuration'].items()),
        ('recorded', topics),
        ('lost while recording', lost),
        ('bag, sha256', document['input']['bag_sha256']),
        *((f'{model["member"]}, sha256', model['onnx_sha256']) for model in document['models']),
    ]


def _figure_element(path: Path) -> str:
    """Return a picture as an element of its own, as JPEG: the PNG beside the page is lossless."""
    _, data = cv2.imencode('.jpg', read_image(path), [cv2.IMWRITE_JPEG_QUALITY, 82])
    encoded = base64.b64encode(data.tobytes()).decode()
    name = html.escape(path.stem.replace('_', ' '))
    return (
        f'<figure><img alt="{name}, annotated" src="data:image/jpeg;base64,{encoded}">'
        f'<figcaption>{name}</figcaption></figure>'
    )


def _number(value: float | None, digits: int) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def _macs(count: int) -> str:
    return f'{count / 1e9:.2f} G' if count >= 1e9 else f'{count / 1e6:.3g} M'
