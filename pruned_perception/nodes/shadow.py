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

"""The dense net beside the member that runs, on a random share of frames: evidence while driving.

The dense net runs in a process of its own that has only what time the machine has left (see
`shadow_process`): in a thread of the node it would now and then hold the interpreter's lock while
it waits for a processor, and the next frame with it. What a frame costs the node is a look, after
its detections were published, and for those that are compared the way of the image through a pipe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle, is_family, load_member
from pruned_perception.errors import UserError
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Settings
from pruned_perception.inference.evidence import DriveEvidence, longest_sample
from pruned_perception.nodes.diagnostics import Watch
from pruned_perception.nodes.drive_log import DriveLog

COMMAND: tuple[str, ...] = (sys.executable, '-m', 'pruned_perception.nodes.shadow_process')
WRITE_S = 10.0
"""What is lost at most where the power goes."""
RETRY_S = 30.0
"""From a failure to the next process."""
PATIENCE_S = 1.0
_CERTIFY = (
    'certify it (pruned-perception certify --parent DENSE --child THIS --holdout DRIVES --record)'
)


@dataclass(frozen=True)
class Claim:
    """What a manifest's certificate says about the detections of the dense net that are lost."""

    certificate: str
    """Its SHA-256."""
    bound: float
    longest: int
    """Most detections of a drive, as declared."""
    settings: Settings
    """Of the member, as certified."""
    overlap: float
    """Least IoU of two detections that are one."""
    parent: str
    """SHA-256 of the dense net."""


def claim_of(bundle: Bundle) -> Claim:
    """Return what the bundle's certificate claims; raises UserError where it cannot be watched."""
    file, data = bundle.manifest_path, bundle.manifest['certificate']
    if bundle.manifest['parent'] is None:
        raise UserError(f'{file}: {bundle.name} is the dense net itself: nothing to compare')
    if data is None:
        raise UserError(f'{file}: {bundle.name} has no certificate: {_CERTIFY}')
    if data.get('version') != 2:
        raise UserError(
            f'{file}: a certificate of an earlier kind, of frames with a dead-band, which cannot '
            f'be watched: {_CERTIFY}'
        )
    try:
        lost, record = data['statements'].get('lost'), data['record']
        if lost is None or lost['bound'] is None or not 0 < lost['bound'] < 1:
            raise UserError(
                f'{file}: the certificate bounds no detections that are lost: certify on more '
                f'drives; {_CERTIFY}'
            )
        claim = Claim(
            certificate=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
            bound=float(lost['bound']),
            longest=int(lost['longest']),
            settings=Settings(
                float(record['score_threshold']),
                bundle.thresholds.iou,
                bundle.thresholds.max_detections,
            ),
            overlap=float(record['iou_threshold']),
            parent=record['parent']['sha256'],
        )
        child = record['child']['sha256']
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f'{file}: the certificate does not say of which networks and thresholds it is '
            f'({error}): {_CERTIFY}'
        ) from error
    if (child, claim.parent) != (bundle.sha256, bundle.manifest['parent']['sha256']):
        raise UserError(f'{file}: the certificate is of other networks: {_CERTIFY}')
    return claim


def parent_of(bundle: Bundle, trusted_keys: Sequence[str] = ()) -> Bundle:
    """Return the dense net of the family that the bundle lies in.

    Raises UserError where there is none, or another one.
    """
    folder, wanted = bundle.path.parent, bundle.manifest['parent']
    if not is_family(folder):
        raise UserError(
            f'{folder}: no family, so that the parent of {bundle.name}, {wanted["name"]}, is not '
            'there: keep both folders side by side'
        )
    try:
        parent = load_member(folder, trusted_keys=trusted_keys)
    except UserError as error:
        raise UserError(
            f'{folder}: {wanted["name"]}, the parent of {bundle.name}, cannot be loaded ({error}): '
            'keep both folders side by side'
        ) from error
    if parent.sha256 != wanted['sha256']:
        raise UserError(
            f'{folder}: {parent.name} is not the parent of {bundle.name}: fetch the family again'
        )
    return parent


class Shadow:
    """Compares frames with the dense net's in the background, and keeps the evidence.

    Args:
        bundle: the member that runs, in the folder of its family.
        share: of the frames, in (0, 1].
        file: where the evidence is kept; '' in memory alone.
        trusted_keys: as for the member.

    Raises:
        UserError: it cannot be watched: no certificate or one of an earlier kind, no parent, a file
            of other evidence.
    """

    def __init__(
        self, bundle: Bundle, share: float, file: str, trusted_keys: Sequence[str] = ()
    ) -> None:
        self.claim = claim_of(bundle)
        parent = parent_of(bundle, trusted_keys)
        self._command = (*COMMAND, str(parent.path.absolute()), parent.sha256)
        self._share = share
        longest = longest_sample(
            self.claim.longest, share, together=self.claim.settings.max_detections
        )
        start = DriveEvidence(self.claim.certificate, self.claim.bound, longest)
        self._log = DriveLog(start, Path(file).expanduser().absolute() if file else None)
        self._lock = threading.Lock()
        self._frames: queue.Queue[tuple[Any, ...] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = self._ending = False
        self._compared = self._skipped = 0
        self._random = random.Random()
        self._trouble = self._mismatch = self._file_trouble = ''
        self._written = 0.0
        self._again = 0.0

    def start(self) -> None:
        """Be ready for frames; the dense net is loaded when the first one comes."""
        self._busy = self._ending = False
        self._frames = queue.Queue()
        self._trouble, self._again = '', 0.0
        self._thread = threading.Thread(target=self._run, name='shadow', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further frame, end the process, and write the file."""
        self._ending = True
        thread, self._thread = self._thread, None
        self._frames.put(None)
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()
        if thread is not None:
            thread.join(PATIENCE_S)
        self._write()

    def offer(
        self,
        image: NDArray[np.uint8],
        order: str,
        detections: Detections,
        settings: Settings,
        hurried: bool,
    ) -> None:
        """Compare a frame, perhaps; returns at once.

        It must be drawn; and it is left out while another one is compared, a newer one waits, or
        the dense net has failed just now.
        """
        with self._lock:
            self._log.notice()
        self._mismatch = ''
        if settings != self.claim.settings:
            self._mismatch = (
                f'frames are not compared: {_in_words(settings)} is in use, certified is '
                f'{_in_words(self.claim.settings)}'
            )
            return
        if self._random.random() >= self._share:
            return
        if hurried or self._busy or self._ending or time.monotonic() < self._again:
            self._skipped += 1
            return
        self._busy = True
        self._frames.put((image, order, detections))

    def state(self) -> Watch:
        """Return how it stands, for the diagnostics."""
        with self._lock:
            self._log.look()
            log = self._log
            return Watch(
                evidence=log.evidence,
                events=log.events,
                counts=log.counts,
                compared=self._compared,
                skipped=self._skipped,
                file='' if log.file is None else str(log.file),
                trouble='; '.join(
                    filter(None, (self._trouble, self._mismatch, self._file_trouble))
                ),
            )

    def _run(self) -> None:
        frames = self._frames
        try:
            while (frame := frames.get()) is not None:
                try:
                    events, counts = self._ask(*frame)
                except Exception as error:  # of the process, or a defect: the node goes on
                    if not self._ending:
                        self._trouble = f'the dense net fails: {error}'
                        self._again = time.monotonic() + RETRY_S
                    self._end_process()
                else:
                    self._trouble = ''
                    with self._lock:
                        self._log.add(events, counts)
                    self._compared += 1
                    if time.monotonic() > self._written + WRITE_S:
                        self._write()
                self._busy = False
        finally:
            self._end_process()

    def _ask(self, image: NDArray[np.uint8], order: str, detections: Detections) -> tuple[int, int]:
        """Return how many of the dense net's detections are lost, and how many there are."""
        process = self._process or self._start_process()
        assert process.stdin is not None
        assert process.stdout is not None
        header = {
            'shape': image.shape,
            'order': order,
            'boxes': detections.boxes.tolist(),
            'scores': detections.scores.tolist(),
            'class_ids': detections.class_ids.tolist(),
            'score_threshold': self.claim.settings.score_threshold,
            'iou_threshold': self.claim.overlap,
        }
        process.stdin.write(json.dumps(header).encode() + b'\n')
        process.stdin.write(np.ascontiguousarray(image).data)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise UserError(f'its process ended (status {process.wait()})')
        answer = json.loads(line)
        if 'error' in answer:
            raise UserError(answer['error'])
        return int(answer['lost']), int(answer['shown'])

    def _start_process(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the node's, which ends it
        )
        with self._lock:
            self._process = process
        if self._ending:
            process.kill()
        return process

    def _end_process(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def _write(self) -> None:
        with self._lock:
            content: Mapping[str, Any] = self._log.content()
        try:
            self._log.write(content)
        except UserError as error:
            self._file_trouble = str(error)
        else:
            self._file_trouble = ''
        self._written = time.monotonic()


def _in_words(settings: Settings) -> str:
    classes = 'all classes' if settings.classes is None else 'some classes'
    return (
        f'score_threshold {settings.score_threshold:g}, iou_threshold {settings.iou_threshold:g}, '
        f'max_detections {settings.max_detections}, {classes}'
    )
