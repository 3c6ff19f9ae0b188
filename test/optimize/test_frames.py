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

"""Which frames are for what: nothing is chosen on a frame that certifies."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.optimize.frames import Pictures, collect, split_frames

drives = st.lists(st.integers(20, 60), min_size=1, max_size=12).map(
    lambda lengths: [f'd{k}' for k, n in enumerate(lengths) for _ in range(n)]
)


@given(drives=drives, seed=st.integers(0, 9))
def test_no_frame_is_in_two_parts_and_no_drive_where_there_are_five(drives, seed):
    split = split_frames(drives, seed)
    parts = [split.fit, split.choose, split.certify]
    assert all(parts)
    assert max(Counter(k for part in parts for k in part).values()) == 1
    if len(set(drives)) < 5:
        assert not split.by_drives
        return
    assert split.by_drives
    assert split.drives >= 2
    of = [{drives[k] for k in part} for part in parts]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])


@given(length=st.integers(30, 400))
def test_a_single_drive_is_cut_in_time_with_gaps(length):
    split = split_frames(['d'] * length)
    assert max(split.fit) + 1 < min(split.choose)
    assert max(split.choose) + 1 < min(split.certify)


def test_a_video_is_a_drive_whose_frames_are_kept(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / 'drive.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48)
    )
    noise = np.random.default_rng(0)
    for _ in range(50):
        writer.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    frames, remarks = collect([tmp_path / 'drive.avi'], tmp_path / 'kept', limit=30)
    assert {each.drive for each in frames} == {'drive.avi'}
    assert len(frames) == 30
    assert '30 of its 50 frames' in remarks[0]
    (tmp_path / 'drive.avi').unlink()
    again, _ = collect([tmp_path / 'drive.avi'], tmp_path / 'kept', limit=30)
    assert again == frames
    assert Pictures(again)[3].shape == (48, 64, 3)
