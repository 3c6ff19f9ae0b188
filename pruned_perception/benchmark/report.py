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

"""The demonstration's pictures, plots and page, and its summary for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception import _pages as pages
from pruned_perception._plots import literal, matplotlib
from pruned_perception._tables import Table, shown
from pruned_perception.benchmark.accuracy import detections
from pruned_perception.benchmark.bag import read_bag, stamp_of
from pruned_perception.benchmark.demo import BAG, IMAGE, LIVE, Demonstration
from pruned_perception.benchmark.results import PATH, WARM_UP
from pruned_perception.errors import UserError
from pruned_perception.images import read_image
from pruned_perception.inference.drawing import draw

WIDTH = 9.6
"""Of most plots, in inches."""
FRAMES, PAGE = 'frames', 'report.html'
"""Names in the output folder."""

_INK, _SOFT, _AXIS, _LINE, *_COLORS = (
    pages.COLORS[name][0] for name in ('ink', 'soft', 'axis', 'line', 'first', 'second')
)
_STYLE = {
    'axes.axisbelow': True,
    'axes.edgecolor': _AXIS,
    'axes.grid': True,
    'axes.labelcolor': _SOFT,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.size': 10,
    'grid.color': _LINE,
    'legend.frameon': False,
    'text.color': _INK,
    'xtick.color': _SOFT,
    'ytick.color': _SOFT,
}
_STAGE_COLORS = ('#c9d3df', '#a9b8c9', '#7fb2e5', '#2f6db3', '#5fb59a', '#8fd0b5', '#e0c88a')
_MARGIN, _GAP = 34, 12  # height of the captions, width between the pictures; pixels


def write_report(demonstration: Demonstration, *, pictures: int = 6) -> Path:
    """Write annotated frames and the page into the demonstration's folder; return the page.

    Raises:
        UserError: matplotlib or jinja2 is not installed, or the folder cannot be written.
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
    replays = demonstration.replays
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


def _color(demonstration: Demonstration, section: dict[str, Any]) -> str:
    """Return a run's colour: the models' own, grey for the live run."""
    replays = demonstration.replays
    return _COLORS[replays.index(section)] if section in replays else _AXIS


def _title(section: dict[str, Any]) -> str:
    return f'{section["model"]}, live' if section['name'] == LIVE else section['name']


def _svg(
    plot: Callable[[Demonstration, Any], None],
    demonstration: Demonstration,
    title: str,
    size: tuple[float, float],
) -> Any:
    """Return a plot as an SVG element that says what it shows to those who cannot see it.

    It has the page's style; `size` is its width and height in inches.
    """
    from markupsafe import Markup

    library, buffer = matplotlib(), io.StringIO()
    with library.rc_context(_STYLE):
        figure = library.figure.Figure(figsize=size, layout='constrained')
        plot(demonstration, figure.add_subplot())
        figure.savefig(buffer, format='svg', metadata={'Date': None}, transparent=True)
    _, _, svg = buffer.getvalue().partition('<svg')
    return Markup('<svg role="img" aria-label="{}"').format(title) + Markup(pages.themed(svg))


def _legend_above(axes: Any, columns: int) -> None:
    size = 9 if columns > 4 else 10
    axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=columns, fontsize=size)


def _stages(demonstration: Demonstration, axes: Any) -> None:
    """Draw stacked bars of a typical frame's stages, one per run."""
    sections = demonstration.document['runs'][::-1]
    names = [literal(_title(section)) for section in sections]
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
            f'{sum(parts.values()):.1f} ms, inference {parts["inference"]:.1f}',
            va='center',
        )
    axes.set_xlim(0, left.max() * 1.32)
    axes.set_xlabel('ms')
    axes.grid(axis='y', visible=False)
    _legend_above(axes, len(PATH))


@dataclass(frozen=True)
class _Measured:
    """The two detectors in one way of measuring: ms of the network, and of all else; and why."""

    name: str
    network: tuple[float, float]
    rest: tuple[float, float]

    @property
    def ratio(self) -> float:
        """How many times as fast the small one is."""
        (first, last), (one, other) = self.network, self.rest
        return (first + one) / (last + other)


def _measured(demonstration: Demonstration) -> list[_Measured]:
    """Return the frame end to end, the engine in the node, and the engine alone where recorded."""
    first, last = demonstration.replays[0], demonstration.replays[-1]

    def medians(quantity: str) -> tuple[float, float]:
        return tuple(each['latency_ms'][quantity]['p50'] for each in (first, last))

    network, whole = medians('inference'), medians('e2e_receive')
    rest = (max(whole[0] - network[0], 0.0), max(whole[1] - network[1], 0.0))
    found = [
        _Measured('end to end, in ROS 2', network, rest),
        _Measured('the network, in the node', network, (0.0, 0.0)),
    ]
    models = {each['member']: each for each in demonstration.document['models']}
    if (alone := models[last['name']].get('engine_alone')) is not None:
        pair = (alone['p50_ms'] * alone['speedup'], alone['p50_ms'])
        found.append(_Measured('the network alone', pair, (0.0, 0.0)))
    return found


def _ratios(demonstration: Demonstration, axes: Any) -> None:
    """Draw both detectors' time for a frame, and their ratio, in each way of measuring."""
    measured = _measured(demonstration)[::-1]
    longest = max(max(map(sum, zip(m.network, m.rest, strict=True))) for m in measured)
    names = [literal(each['name']) for each in demonstration.replays]
    for row, each in enumerate(measured):
        for index, color in ((0, _COLORS[0]), (1, _COLORS[1])):
            at = row + (0.19, -0.19)[index]
            label = None if row else f'{(names[0], names[-1])[index]}: network'
            axes.barh(at, each.network[index], color=color, height=0.34, label=label)
            axes.barh(
                at, each.rest[index], left=each.network[index], color=_LINE, height=0.34,
                label='all else: transport, images, boxes' if row == index == 0 else None,
            )  # fmt: skip
            total = each.network[index] + each.rest[index]
            axes.text(total + 0.01 * longest, at, f'{total:.1f} ms', va='center', fontsize=9)
    names = [f'{each.name}\n{each.ratio:.1f} times as fast' for each in measured]
    axes.set_yticks(range(len(measured)), names)
    axes.set_xlim(0, 1.14 * longest)
    axes.set_xlabel('ms a frame, medians')
    axes.grid(axis='y', visible=False)
    _legend_above(axes, 1)


def _spread(demonstration: Demonstration, axes: Any) -> None:
    """Draw the empirical distribution of end-to-end latency, one line per run."""
    upper = 0.0
    for section in demonstration.document['runs']:
        frames = demonstration.runs[section['name']].frames.without_warm_up()
        values = np.sort(frames.quantities['e2e_receive'])
        values = values[np.isfinite(values)]
        color = _color(demonstration, section)
        share = np.arange(1, len(values) + 1) / len(values)
        line = (0, (2, 1.5)) if section['name'] == LIVE else 'solid'
        axes.step(values, 100 * share, color=color, linewidth=2, linestyle=line, where='post')
        summary = section['latency_ms']['e2e_receive']
        points = [summary[key] for key in ('p50', 'p90', 'p99')]
        text = ' / '.join(f'{each:.1f}' for each in points)
        label = f'{literal(_title(section))}: {text} ms'
        axes.plot(points, [50, 90, 99], 'o', color=color, label=label)
        upper = max(upper, summary['p99'])
    axes.set_xlim(0, upper * 1.25)
    axes.set_ylim(0, 102)
    axes.set_xlabel('end to end, ms')
    axes.set_ylabel('frames within, %')
    axes.legend(title='p50 / p90 / p99', loc='lower right')


def _timeline(demonstration: Demonstration, axes: Any) -> None:
    """Draw end-to-end latency over the time of the drive, a dot per frame of the replays."""
    for section, color in zip(demonstration.replays, _COLORS, strict=False):
        frames = demonstration.runs[section['name']].frames
        values = frames.quantities['e2e_receive']
        axes.plot(frames.received_s, values, color=color, linewidth=0.8, alpha=0.35)
        label = literal(section['name'])
        axes.plot(frames.received_s, values, '.', color=color, markersize=4, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel('time of the replay, s')
    axes.set_ylabel('end to end, ms')
    _legend_above(axes, 2)


def _classes(demonstration: Demonstration, axes: Any) -> None:
    """Draw AP50 per class, a bar per replayed model."""
    replays = demonstration.replays
    per_class = replays[0]['accuracy']['per_class']
    labels = [label for label, each in per_class.items() if each['boxes']]
    width = 0.8 / len(replays)
    for index, (section, color) in enumerate(zip(replays, _COLORS, strict=False)):
        values = [section['accuracy']['per_class'][label]['ap50'] or 0.0 for label in labels]
        at = np.arange(len(labels)) + (index - (len(replays) - 1) / 2) * width
        axes.bar(at, values, width * 0.92, color=color, label=literal(section['name']))
    ticks = [
        f'{literal(label.replace("_", " "))}\n({per_class[label]["boxes"]})' for label in labels
    ]
    axes.set_xticks(range(len(labels)), ticks)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel('AP50')
    axes.grid(axis='x', visible=False)
    _legend_above(axes, 2)


# -- the page --------------------------------------------------------------------------------


def render(demonstration: Demonstration, pictures: Sequence[Path]) -> str:
    """Return the page; everything is inside it, nothing is fetched from anywhere."""
    runs = len(demonstration.document['runs'])
    measured = _measured(demonstration)
    # The first is what a phone must show whole; of the others it shows a part at a time.
    plots = {
        'ratios': (_ratios, 'A frame, measured three ways', (5.0, 1.2 + 0.7 * len(measured))),
        'stages': (_stages, 'Stages of a typical frame, per run', (WIDTH, 0.75 + 0.62 * runs)),
        'spread': (_spread, 'Distribution of end-to-end latency', (WIDTH, 3.6)),
        'timeline': (_timeline, 'End-to-end latency of every frame', (WIDTH, 3.2)),
        'classes': (_classes, 'AP50 per class', (WIDTH, 3.2)),
    }
    return pages.render(
        'benchmark/report.html',
        demonstration=demonstration,
        figures=_figures(demonstration),
        measured=measured,
        summary=summary(demonstration, notes=True),
        plots={
            name: _svg(plot, demonstration, title, size)
            for name, (plot, title, size) in plots.items()
        },
        pictures={path.stem.replace('_', ' '): _jpeg(path) for path in pictures},
        made=_facts(demonstration),
        WARM_UP=WARM_UP,
    )


def _figures(demonstration: Demonstration) -> list[tuple[str, str]]:
    """Return what the page begins with: values, and what they are."""
    replays = demonstration.replays
    first, last = replays[0], replays[-1]
    cost = {model['member']: model['macs'] for model in demonstration.document['models']}
    lost = sum(section['frames']['middleware_loss'] or 0 for section in replays)
    sent = sum(section['frames']['sent'] for section in replays)

    def median(section: dict[str, Any], quantity: str) -> float:
        return float(section['latency_ms'][quantity]['p50'])

    ratio = median(first, 'inference') / median(last, 'inference')
    whole = median(first, 'e2e_receive') / median(last, 'e2e_receive')
    accuracy = [section['accuracy']['ap50'] for section in (first, last)]
    return [
        (
            f'{median(first, "e2e_receive"):.1f} → {median(last, "e2e_receive"):.1f} ms',
            f'end to end, median: {whole:.1f} times as fast',
        ),
        (
            f'{median(first, "inference"):.1f} → {median(last, "inference"):.1f} ms',
            f'inference, median: {ratio:.1f} times as fast',
        ),
        (' → '.join(shown(each, '.3f') for each in accuracy), 'AP50 of the published boxes'),
        (
            f'{pages.macs(cost[first["name"]])} → {pages.macs(cost[last["name"]])}',
            'multiply–accumulates a frame',
        ),
        (f'{lost} of {sent}', 'frames lost by the middleware'),
    ]


_ROWS = (
    ('e2e_receive', 'end to end, at the subscriber'),
    ('overhead', 'overhead'),
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


def summary(demonstration: Demonstration, *, notes: bool = False) -> Table:
    """Return the runs side by side; notes say more, in cells of two lines."""
    sections = demonstration.document['runs']
    accuracies = [section['accuracy'] for section in sections]
    small = [each['small'] for each in accuracies]

    def heading(section: dict[str, Any]) -> str:
        return _title(section) + (f'\n{section["description"]}' if notes else '')

    def latency(section: dict[str, Any], quantity: str) -> str | None:
        if (found := section['latency_ms'].get(quantity)) is None:
            return None
        interval = found['p50_interval'] if notes else None
        note = '\n{:.1f} … {:.1f}'.format(*interval) if interval else ''
        return ' / '.join(shown(found[key], '.1f') for key in ('p50', 'p90', 'p99')) + note

    def precision(accuracy: dict[str, Any], key: str) -> str:
        interval = accuracy[f'{key}_interval']
        note = ' ({:.3f}–{:.3f})'.format(*interval) if interval else ''
        return shown(accuracy[key], '.3f') + note

    rows: list[Sequence[object]] = [
        ['latency, ms (p50 / p90 / p99)'],
        *([name, *(latency(each, quantity) for each in sections)] for quantity, name in _ROWS),
        ['frames'],
        *([name, *(each['frames'].get(key) for each in sections)] for key, name in _FRAME_ROWS),
        ['accuracy against the ground truth'],
        ['frames compared', *(each['images'] for each in accuracies)],
        ['AP50', *(precision(each, 'ap50') for each in accuracies)],
        ['AP50:95', *(precision(each, 'ap50_95') for each in accuracies)],
        ['recall', *(shown(each['recall'], '.3f') for each in accuracies)],
        ['precision', *(shown(each['precision'], '.3f') for each in accuracies)],
        [
            f'recall, boxes under {small[0]["longer_side_below_px"]} px',
            *(f'{shown(each["recall"], ".3f")} of {each["boxes"]}' for each in small),
        ],
        ['resources'],
        ['CPU of the node, % of a core', *(each['cpu_percent'] for each in sections)],
        ['memory of the node, MiB', *(each['rss_mib'] for each in sections)],
    ]
    return Table([('', ''), *((heading(each), '.0f') for each in sections)], rows)


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


def _jpeg(path: Path) -> str:
    """Return a picture as an address that holds it, a JPEG: the PNG beside the page is lossless."""
    _, data = cv2.imencode('.jpg', read_image(path), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return pages.data_uri(data.tobytes(), 'jpeg')
