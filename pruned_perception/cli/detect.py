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

"""`pruned-perception detect`: a detector on images, a video, a bag, a camera or a topic."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import printable
from pruned_perception.bundle import Bundle, load_member, resolve_model
from pruned_perception.cli.annotated_video import AnnotatedVideo
from pruned_perception.cli.arguments import (
    add_execution_provider,
    add_time_limit,
    at_least,
    fraction,
    topic,
)
from pruned_perception.cli.output import check_output, say
from pruned_perception.errors import UserError
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import MOST_CANDIDATES, Detector
from pruned_perception.inference.errors import ImageError, InferenceError
from pruned_perception.inference.frame_times import DETECTOR_STAGES, FrameTimes
from pruned_perception.inference.latency import NS_PER_MS, summarize
from pruned_perception.inference.providers import Execution
from pruned_perception.inference.sources import Frame, Source, UnreadableFrame, open_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'source',
        nargs='?',
        help='image, folder (with its sub-folders), video, rosbag2 bag; or a camera: its number, '
        '/dev/video0, or an RTSP address, rtsp://…, which opens a network connection to it',
    )
    parser.add_argument(
        '--model', required=True, help='bundle or family: a path or package://PACKAGE/PATH'
    )
    parser.add_argument('--member', default='', help="member of the family; the dense one if ''")
    parser.add_argument(
        '--topic',
        type=topic,
        help='image topic of the bag, where it has several; without a source, a live one',
    )
    parser.add_argument(
        '--score-threshold', type=fraction, metavar='X', help="0 … 1; the bundle's by default"
    )
    parser.add_argument('--threads', type=at_least(1), default=1, metavar='N', help='default 1')
    add_execution_provider(parser)
    add_time_limit(parser)
    parser.add_argument('--json', action='store_true', help='one JSON object a line and frame')
    parser.add_argument(
        '--annotate', type=Path, metavar='DIR', help='write the frames with boxes there, as PNG'
    )
    parser.add_argument(
        '--video', type=Path, metavar='FILE.mp4', help='write the frames with boxes as a video'
    )


def run(args: argparse.Namespace) -> int:
    """Detect; 1 where a frame could not be read or failed, which does not stop the others."""
    bundle = load_member(resolve_model(args.model), args.member)
    _check(args)
    with ExitStack() as stack:
        return _detect(args, bundle, stack)


def _check(args: argparse.Namespace) -> None:
    """Raise UserError where source and results do not go together."""
    if args.source is None and args.topic is None:
        raise UserError('give a source: an image, folder, video, bag or camera; or --topic NAME')
    if args.annotate is not None:
        _check_annotate(args.annotate, None if args.source is None else Path(args.source))
    if args.video is not None:
        if args.video.suffix.lower() != '.mp4':
            raise UserError(f'--video {args.video}: is written as MP4: give a name in .mp4')
        check_output(args.video)


def _open(args: argparse.Namespace, stack: ExitStack) -> Source:
    """Open what the arguments name; a live source ends with Ctrl-C."""
    if args.source is None:
        from pruned_perception.benchmark.live_topic import open_topic
        from pruned_perception.benchmark.session import ros_session

        return open_topic(stack.enter_context(ros_session('detect')), args.topic)
    if args.topic is None and not Path(args.source).exists():
        from pruned_perception.inference.cameras import host_of, is_camera, open_camera, public

        if is_camera(args.source):
            if host := host_of(args.source):
                say(
                    f'{public(args.source)}: this opens a network connection, to {host}',
                    file=sys.stderr,
                )
            return open_camera(args.source)
    return open_source(args.source, args.topic)


def _detect(args: argparse.Namespace, bundle: Bundle, stack: ExitStack) -> int:
    source = _open(args, stack)
    path = Path(args.source or '')
    video = None if args.video is None else stack.enter_context(AnnotatedVideo(args.video))
    detector = Detector(
        bundle,
        threads=args.threads,
        time_limit_s=args.time_limit,
        execution_provider=args.execution_provider,
    )
    execution = detector.execution
    if execution.warning or execution.left:
        say(f'{bundle.name}: {execution.warning or execution.to_text()}', file=sys.stderr)
    if args.score_threshold is not None:
        detector.settings = replace(detector.settings, score_threshold=args.score_threshold)

    times: list[FrameTimes] = []
    found: Counter[str] = Counter()
    unreadable = crowded = 0
    name = args.topic if args.source is None else args.source
    with (
        _progress(f'detecting in {name}', source.count) as (advance, out),
        _interruptible(source),
    ):
        for frame in source.frames:
            try:
                if isinstance(frame, UnreadableFrame):
                    raise ImageError(frame.reason)
                detections, frame_times = detector.detect(frame.image, frame.order)
            except (ImageError, InferenceError) as error:  # of this frame alone
                unreadable += 1
                say(f'not used: {error}', file=sys.stderr)
                advance()
                continue
            times.append(frame_times)
            crowded += bool(detections.left_out)
            found.update(bundle.labels[class_id] for class_id in detections.class_ids)
            as_text = json_line if args.json else text_line
            line = as_text(frame, detections, frame_times, bundle.labels, execution)
            print(line, file=out(), flush=True)
            if args.annotate is not None or video is not None:
                canvas = _drawn(frame, detections, bundle.labels)
                if args.annotate is not None:
                    _annotate(args.annotate, path, frame, canvas)
                if video is not None:
                    video.write(canvas, frame.stamp)
            advance()
    if not args.json:
        say(_summary(times, found))
        say(f'  execution  {execution.to_text()}')
    if crowded:
        print(
            f'{crowded} of {len(times)} frames had more than {MOST_CANDIDATES} candidates; those '
            'with the lowest scores were left out: raise --score-threshold',
            file=sys.stderr,
        )
    if unreadable:
        print(f'{unreadable} of {unreadable + len(times)} frames not used', file=sys.stderr)
    return 1 if unreadable else 0


@contextmanager
def _interruptible(source: Source) -> Iterator[None]:
    """Let Ctrl-C end a live source as if it had ended by itself."""
    try:
        yield
    except KeyboardInterrupt:
        if not source.live:
            raise


def json_line(
    frame: Frame,
    detections: Detections,
    times: FrameTimes,
    labels: Sequence[str],
    execution: Execution,
) -> str:
    """Return one frame's detections as a JSON object; pixels of the source image, xywh boxes."""
    height, width = frame.image.shape[:2]
    content = {
        'source': frame.source,
        'index': frame.index,
        'stamp': frame.stamp,
        'width': width,
        'height': height,
        'detections': [
            {'label': label, 'class_id': class_id, 'score': round(score, 4), 'bbox': bbox}
            for label, class_id, score, bbox in _rows(detections, labels)
        ],
        'timings_ms': {
            stage: round(getattr(times, stage) / NS_PER_MS, 4) for stage in DETECTOR_STAGES
        },
        **execution.to_dict(),
    }
    return json.dumps(content, ensure_ascii=False)


def text_line(
    frame: Frame,
    detections: Detections,
    times: FrameTimes,
    labels: Sequence[str],
    execution: Execution,
) -> str:
    """Return one frame's detections as a line for people."""
    height, width = frame.image.shape[:2]
    milliseconds = (times.t_post - times.t_start) / NS_PER_MS
    boxes = ', '.join(
        f'{label} {score:.2f} at ({x:.0f}, {y:.0f}) {w:.0f}×{h:.0f}'
        for label, _, score, (x, y, w, h) in _rows(detections, labels)
    )
    name = f'{frame.source} #{frame.index}'
    return printable(f'{name}  {width}×{height}  {milliseconds:.1f} ms  {boxes or "nothing found"}')


def _rows(
    detections: Detections, labels: Sequence[str]
) -> Iterator[tuple[str, int, float, list[float]]]:
    for box, score, class_id in zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.class_ids.tolist(),
        strict=True,
    ):
        x, y, right, bottom = box
        bbox = [round(value, 2) for value in (x, y, right - x, bottom - y)]
        yield labels[class_id], class_id, score, bbox


def _summary(times: Sequence[FrameTimes], found: Counter[str]) -> str:
    counts = ', '.join(f'{count} {label}' for label, count in found.most_common())
    lines = [f'{len(times)} frames, {found.total()} detections' + (f': {counts}' if counts else '')]
    for stage in DETECTOR_STAGES:
        values = [getattr(each, stage) / NS_PER_MS for each in times]
        summary = summarize(values, resamples=0)
        if summary is not None:
            lines.append(
                f'{stage:>12}  p50 {summary.p50:.2f}  p90 {summary.p90:.2f}  '
                f'p99 {summary.p99:.2f} ms'
            )
    return '\n'.join(lines)


def _check_annotate(folder: Path, source: Path | None) -> None:
    if source is not None and source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f'--annotate {folder}: inside {source}, whose images are read; give another folder'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--annotate {folder}: {error.strerror}') from error


def _drawn(frame: Frame, detections: Detections, labels: Sequence[str]) -> NDArray[np.uint8]:
    """Return the frame with boxes, bgr."""
    from pruned_perception.inference.drawing import draw

    canvas = draw(frame.image, detections, labels, frame.order)
    return canvas[:, :, ::-1] if frame.order == 'rgb' else canvas


def _annotate(folder: Path, source: Path, frame: Frame, canvas: NDArray[np.uint8]) -> None:
    """Write one annotated frame; images keep their name and place, with .png appended."""
    import cv2

    if Path(frame.source) == source and frame.stamp is None:
        file = folder / f'{source.name}.png'
    elif frame.stamp is None:
        relative = Path(frame.source).relative_to(source)
        file = folder / relative.with_name(f'{relative.name}.png')
    else:
        name = source.name or frame.source.strip('/').replace('/', '_')
        file = folder / f'{name}_{frame.index:06d}.png'
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode('.png', canvas)[1].tobytes())
    except OSError as error:
        raise UserError(f'{file}: cannot be written: {error.strerror}') from error


@contextmanager
def _progress(title: str, count: int | None) -> Iterator[tuple[Any, Any]]:
    """Yield a function to call after each frame, and one that returns where lines go.

    The bar is on standard error, and only where that is a terminal.
    """
    stdout: TextIO = sys.stdout
    if not sys.stderr.isatty():
        yield (lambda: None), (lambda: stdout)
        return
    from pruned_perception.cli.progress import Progress

    with Progress(title) as progress:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if count:
                progress.share(done / count)
            else:
                progress.text(f'{done} frames')

        # While the bar stands, sys.stdout is a proxy that prints above it, on the bar's stream:
        # right where both are one terminal, wrong where standard output goes elsewhere.
        yield advance, (lambda: sys.stdout if stdout.isatty() else stdout)
