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

"""The process of the dense net beside a node: frames in, how many detections the member lost out.

It runs only while a processor has nothing else to do, and ends with the node: at the end of its
input. A frame is a line of JSON and the image's bytes; the answer is a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import replace
from typing import IO, Any

from pruned_perception.errors import UserError


def be_idle() -> None:
    """Take only the time that nothing else on the machine wants."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):  # Linux
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def serve(folder: str, sha256: str, frames: IO[bytes], answers: IO[bytes]) -> None:
    """Answer frames with the model of the bundle `folder`, which must have that SHA-256."""
    import numpy as np

    from pruned_perception.bundle import load_bundle
    from pruned_perception.inference import Detector
    from pruned_perception.inference.decisions import match_objects
    from pruned_perception.inference.detections import Detections

    detector: Detector | None = None

    def answer(header: dict[str, Any], data: bytes) -> dict[str, Any]:
        nonlocal detector
        if detector is None:
            bundle = load_bundle(folder)
            if bundle.sha256 != sha256:
                raise UserError(f'{folder}: another model is there by now')
            detector = Detector(bundle, threads=1)
        image = np.frombuffer(data, np.uint8).reshape(header['shape'])
        threshold = header['score_threshold']
        settings = replace(detector.settings, score_threshold=threshold)
        parent, _ = detector.detect(image, header['order'], settings)
        child = Detections(
            np.array(header['boxes'], np.float32).reshape(-1, 4),
            np.array(header['scores'], np.float32),
            np.array(header['class_ids'], np.int64),
        )
        found = match_objects(
            parent, child, score_threshold=threshold, iou_threshold=header['iou_threshold']
        )
        return {'lost': len(found.lost), 'shown': len(found.shown)}

    while line := frames.readline():
        header = json.loads(line)
        size = int(np.prod(header['shape']))
        data = frames.read(size)
        if len(data) < size:
            return
        try:
            result = answer(header, data)
        except UserError as error:
            result = {'error': str(error)}
        answers.write(json.dumps(result).encode() + b'\n')
        answers.flush()


def main() -> None:
    """Serve the node that started this process, on its standard input and output."""
    be_idle()
    folder, sha256 = sys.argv[1:]
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # whatever a library prints is no answer
    with contextlib.suppress(BrokenPipeError):
        serve(folder, sha256, sys.stdin.buffer, answers)


if __name__ == '__main__':
    main()
