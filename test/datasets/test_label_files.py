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

"""Label n stands on line n: no line vanishes, and none is added."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.datasets import DataError, is_placeholder, read_labels


def _is_label(text: str) -> bool:
    return text.strip('\ufeff').strip() == text and not is_placeholder(text)


_characters = st.characters(blacklist_categories=('Cs', 'Cc'))
label = st.text(_characters, min_size=1, max_size=8).filter(_is_label)


@given(
    labels=st.lists(label | st.sampled_from(['???', 'N/A']), min_size=1, max_size=12),
    mark=st.sampled_from(['', '\ufeff']),
    end=st.sampled_from(['\n', '\r\n', '\r']),
    rest=st.sampled_from(['', '\n', ' \r\n\n']),
)
def test_every_label_keeps_its_position(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], mark: str, end: str, rest: str
) -> None:
    file = tmp_path_factory.mktemp('labels') / 'labels.txt'
    file.write_bytes((mark + end.join(labels) + rest).encode())
    names = [text for text in labels if not is_placeholder(text)]
    if len(set(names)) < len(names):
        with pytest.raises(DataError, match='is there twice: lines'):
            read_labels(file)
        return
    found = read_labels(file)
    assert len(found) == len(labels) == len(set(found))
    for index, (read, written) in enumerate(zip(found, labels, strict=True)):
        if is_placeholder(written):
            assert read == f'{written} {index}' and is_placeholder(read)
        else:
            assert read == written


@pytest.mark.parametrize('text', ['\nred\nblue', 'red\n \nblue\n', 'red\n\n\nblue'])
def test_an_empty_line_between_labels_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / 'labels.txt'
    file.write_text(text)
    with pytest.raises(DataError, match=r'labels\.txt: line [12] is empty, .*class id; .*N/A'):
        read_labels(file)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'no labels in it'),
        (b'\xef\xbb\xbf \n', 'no labels in it'),
        (b'\xff\xfer\0', 'not a text file in UTF-8'),
        (b'a\nb\na\n', "'a' is there twice: lines 1, 3"),
    ],
)
def test_what_is_no_list_of_labels_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / 'labels.txt'
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(file)
    with pytest.raises(DataError, match=r'nowhere\.txt: No such file'):
        read_labels(tmp_path / 'nowhere.txt')
