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

"""Pascal VOC as its own data and everybody's tools write it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from square_files import BOXES, HEIGHT, WIDTH, jpeg, picture, voc_text, write_voc
from tiny_detector import LABELS

from pruned_perception.datasets import DataError, dataset_splits, read_dataset

CORNERS = [[left, top, left + width, top + height] for left, top, width, height in BOXES]
ORDER = tuple(sorted(LABELS))


def rewrite(folder: Path, text: str | bytes, index: int = 1) -> Path:
    data = text.encode() if isinstance(text, str) else text
    (folder / 'Annotations' / f'{index}.xml').write_bytes(data)
    return folder


def test_a_set(tmp_path: Path) -> None:
    found = read_dataset(write_voc(tmp_path / 'set'))
    assert (found.labels, found.split, found.unit) == (ORDER, '', None)
    assert [found.labels[ids[0]] for ids in found.class_ids] == list(LABELS)
    assert [boxes[0].tolist() for boxes in found.boxes] == CORNERS
    assert len(list(found.images())) == 3


@pytest.mark.parametrize(
    'swap',
    [
        ('<ymin>80</ymin><xmax>200</xmax>', '<xmax>200</xmax><ymin>80</ymin>'),
        ('<xmin>80</xmin>', '<xmin>80.0</xmin>'),
        ('<xmin>80</xmin>', '<xmin> 8e1\n</xmin>'),
        ('<pose>Unspecified</pose>', ''),
        ('<depth>3</depth>', ''),
        ('<width>640</width><height>480</height>', '<height>480</height><width>640</width>'),
        ('<width>640</width><height>480</height>', '<width>0</width><height>0</height>'),
        ('<size><width>640</width><height>480</height><depth>3</depth></size>', ''),
        ('<filename>1.png</filename>', ''),
        ('<filename>1.png</filename>', '<filename>C:\\Users\\me\\1.png</filename>'),
        ('<filename>1.png</filename>', '<filename>/home/me/1.png</filename>'),
        ('<filename>1.png</filename>', '<filename>1</filename>'),
        ('<filename>1.png</filename>', '<filename>../../secret.png</filename>'),
        ('<annotation>', '<?xml version="1.0" encoding="utf-8"?><!-- a comment --><annotation>'),
    ],
)
def test_elements_are_found_by_name_whatever_else_is_there(
    swap: tuple[str, str], tmp_path: Path
) -> None:
    text = voc_text(1)
    assert swap[0] in text
    found = read_dataset(rewrite(write_voc(tmp_path / 'set'), text.replace(*swap)))
    assert (found.boxes[1].tolist(), found.sizes[1]) == ([CORNERS[1]], (HEIGHT, WIDTH))
    assert found.paths[1] == tmp_path / 'set/JPEGImages/1.png'


def test_names_may_have_spaces_and_any_characters(tmp_path: Path) -> None:
    folder = rewrite(write_voc(tmp_path / 'set'), voc_text(1, name=' Feu tricolore № 1 &amp; 2 '))
    assert 'Feu tricolore № 1 & 2' in read_dataset(folder).labels
    for index in range(3):
        (folder / 'Annotations' / f'{index}.xml').rename(
            folder / 'Annotations' / f'my picture {index}.xml'
        )
        (folder / 'JPEGImages' / f'{index}.png').rename(
            folder / 'JPEGImages' / f'my picture {index}.png'
        )
    assert len(list(read_dataset(folder).images())) == 3


def test_difficult_objects_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    text = voc_text(1).replace('<bndbox>', '<difficult>1</difficult><bndbox>')
    found = read_dataset(rewrite(write_voc(tmp_path / 'set'), text))
    assert [crowd.tolist() for crowd in found.crowd] == [[False], [True], [False]]


def test_voc_itself_counts_pixels_from_one(tmp_path: Path) -> None:
    source = '<source><database>The VOC2007 Database</database></source><size>'
    found = read_dataset(
        rewrite(write_voc(tmp_path / 'set'), voc_text(1).replace('<size>', source))
    )
    left, top, right, bottom = CORNERS[1]
    assert found.boxes[1].tolist() == [[left - 1, top - 1, right, bottom]]


def test_lists_of_splits(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / 'set')
    lists = folder / 'ImageSets' / 'Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('0\n2\n')
    (lists / 'val.txt').write_text('1 -1\n')
    (lists / 'red_train.txt').write_text('0 1\n')
    (lists / 'trainval.txt').write_text('0\n1\n2\n')
    assert dataset_splits(folder) == ('train', 'val')
    train, val = (read_dataset(folder / split) for split in ('train', 'valid'))
    assert [path.stem for path in train.paths] == ['0', '2']
    assert [path.stem for path in val.paths] == ['1']
    assert train.labels == val.labels == ORDER  # of the set, not of the split
    (lists / 'train.txt').write_text('../../x\n')
    with pytest.raises(DataError, match=r'train\.txt: .*leads out'):
        read_dataset(folder / 'train')
    (lists / 'train.txt').write_text('7\n')
    with pytest.raises(DataError, match=r'7\.xml: cannot be read: No such file'):
        read_dataset(folder / 'train')


def test_xml_beside_the_pictures_and_splits_as_folders(tmp_path: Path) -> None:
    for split, chosen in (('train', (0, 1)), ('valid', (2,))):
        (tmp_path / split).mkdir()
        for index in chosen:
            cv2.imwrite(str(tmp_path / split / f'{index}.png'), picture(index))
            (tmp_path / split / f'{index}.xml').write_text(voc_text(index))
    assert dataset_splits(tmp_path) == ('train', 'valid')
    for path in (tmp_path / 'train', tmp_path / 'valid'):
        found = read_dataset(path)
        assert len(list(found.images())) == len(found)
    assert read_dataset(tmp_path, 'val').labels == ORDER


def test_a_file_of_names_orders_the_classes_and_closes_them(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / 'set')
    (folder / 'labels.txt').write_text('\n'.join([*LABELS, 'hat']))
    found = read_dataset(folder)
    assert (found.labels, found.declared) == ((*LABELS, 'hat'), True)
    with pytest.raises(DataError, match=r"1\.xml: object 1: name 'cat' is none of the 4 classes"):
        read_dataset(rewrite(folder, voc_text(1, name='cat')))


def test_a_class_that_does_not_occur_is_no_contradiction_where_none_are_declared(
    tmp_path: Path,
) -> None:
    folder = write_voc(tmp_path / 'set')
    for index in (1, 2):
        (folder / 'Annotations' / f'{index}.xml').unlink()
    found = read_dataset(folder).with_labels(LABELS, 'net')
    assert (found.labels, found.class_ids[0].tolist()) == (LABELS, [0])
    with pytest.raises(DataError, match='are not those of net'):
        found.with_labels(('green', 'blue'), 'net')


def entity(text: str, body: str) -> str:
    return f'<!DOCTYPE annotation [{body}]>{text}'


BROKEN = {
    'entity': (entity(voc_text(1, xmin='&n;'), '<!ENTITY n "1">'), 'has a document type'),
    'bomb': (
        entity(
            voc_text(1, name='&b;'),
            '<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
        ),
        'has a document type',
    ),
    'file': (
        entity(voc_text(1, name='&f;'), '<!ENTITY f SYSTEM "file:///etc/passwd">'),
        'has a document type',
    ),
    'undeclared': (voc_text(1, name='&x;'), 'cannot be read as XML'),
    'cut': (voc_text(1)[:80], 'cannot be read as XML'),
    'no XML': ('no XML', 'cannot be read as XML'),
    'empty': ('', 'cannot be read as XML'),
    'deep': ('<annotation>' + '<a>' * 1000, 'deep'),
    'encoding': (b'<?xml version="1.0" encoding="none-such"?><annotation/>', 'as XML'),
    'another root': ('<html></html>', "root is 'html'"),
    'nan': (voc_text(1, xmin='nan'), "xmin is 'nan', not a number"),
    'text': (voc_text(1, xmin='left'), "xmin is 'left', not a number"),
    'nothing': (voc_text(1, xmin=''), "xmin is '', not a number"),
    'huge': (voc_text(1, xmax='1e999'), 'inf is not finite'),
    'missing': (voc_text(1).replace('<xmin>80</xmin>', ''), 'xmin is missing'),
    'two': (voc_text(1).replace('<xmin>80', '<xmin>1</xmin><xmin>80'), "xmin is '', not a number"),
    'no box': (voc_text(1).replace('bndbox', 'box'), '0 elements bndbox'),
    'negative': (voc_text(1, xmax='10'), 'width -70'),
    'no area': (voc_text(1, xmax='80'), 'width 0'),
    'outside': (voc_text(1, xmax='900'), '260 pixels out'),
    'no name': (voc_text(1, name=' '), "name '' is none of"),
    'difficult': (
        voc_text(1).replace('<pose>', '<difficult>maybe</difficult><pose>'),
        "difficult is 'maybe'",
    ),
    'size': (voc_text(1, width='wide'), "height and width are (480.0, 'wide')"),
    'half a size': (voc_text(1, width='0'), 'height and width are (480.0, 0.0)'),
    'missing picture': (voc_text(1, filename='7.png'), '7.png: missing'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_what_is_broken_is_named_with_file_and_object(kind: str, tmp_path: Path) -> None:
    text, message = BROKEN[kind]
    folder = rewrite(write_voc(tmp_path / 'set'), text)
    if kind == 'missing picture':
        (folder / 'JPEGImages' / '1.png').unlink()
    with pytest.raises(DataError) as caught:
        list(read_dataset(folder).images())
    assert message in str(caught.value)
    name = '7.png' if kind == 'missing picture' else '1.xml'
    assert f'{name}' in str(caught.value)


def test_a_size_that_is_not_the_pictures(tmp_path: Path) -> None:
    folder = rewrite(write_voc(tmp_path / 'set'), voc_text(1, width='641'))
    with pytest.raises(DataError, match=r'1\.png: is 640 × 480 pixels as stored, but .*641 × 480'):
        read_dataset(folder).image(1)


@pytest.mark.parametrize(('width', 'height'), [('480', '640'), ('0', '0')])
def test_a_picture_that_exif_turned(width: str, height: str, tmp_path: Path) -> None:
    text = voc_text(1, width=width, height=height, filename='1.jpg')
    folder = rewrite(write_voc(tmp_path / 'set'), text)
    (folder / 'JPEGImages' / '1.png').unlink()
    (folder / 'JPEGImages' / '1.jpg').write_bytes(jpeg(picture(1), 6))
    with pytest.raises(DataError, match=r'1\.jpg: .*EXIF'):
        read_dataset(folder).image(1)


def test_two_pictures_or_two_annotations_of_one(tmp_path: Path) -> None:
    folder = rewrite(write_voc(tmp_path / 'set'), voc_text(2))
    with pytest.raises(DataError, match=r"1\.xml: filename is '2\.png', and 1\.png lies there too"):
        read_dataset(folder)
    (folder / 'JPEGImages' / '1.png').unlink()
    with pytest.raises(DataError, match=r'2\.xml: .*2\.png is the picture of .*1\.xml already'):
        read_dataset(folder)
    rewrite(folder, voc_text(1, filename=''))
    for suffix in ('.jpg', '.png'):
        (folder / 'JPEGImages' / f'1{suffix}').write_bytes(jpeg(picture(1)))
    with pytest.raises(DataError, match=r'1\.xml: its picture may be 1\.jpg or 1\.png'):
        read_dataset(folder)


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set of which tests change an annotation."""
    return write_voc(tmp_path_factory.mktemp('sound') / 'set')


plain = st.characters(blacklist_characters='<>&', blacklist_categories=['Cs', 'Cc'])
texts = st.text(plain, max_size=6)
numbers = st.one_of(st.integers(-10, 700).map(str), st.floats().map(str), texts)


@given(
    raw=st.binary(max_size=100)
    | st.fixed_dictionaries(
        {},
        optional={
            name: texts if name in ('name', 'filename') else numbers
            for name in ('name', 'filename', 'xmin', 'ymin', 'xmax', 'ymax', 'width', 'height')
        },
    ).map(lambda changes: voc_text(1, **changes).encode())
)
@example(raw=voc_text(1, xmin='-1e-154', xmax='0').encode())  # a sliver, of no width as it is kept
def test_any_annotation_is_boxes_inside_the_picture_or_an_error(sound: Path, raw: bytes) -> None:
    try:
        found = read_dataset(rewrite(sound, raw))
    except DataError as error:
        assert '1.xml' in str(error)
        return
    boxes = np.concatenate(found.boxes)
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()


pixel = st.floats(0, 600).map(lambda x: round(x, 3))


@given(left=pixel, top=st.floats(0, 440).map(lambda x: round(x, 3)), side=st.floats(0.5, 40))
def test_what_is_written_is_read(sound: Path, left: float, top: float, side: float) -> None:
    box = {'xmin': left, 'ymin': top, 'xmax': left + side, 'ymax': top + side}
    found = read_dataset(rewrite(sound, voc_text(1, **{k: repr(v) for k, v in box.items()})))
    np.testing.assert_allclose(found.boxes[1][0], list(box.values()), rtol=1e-6)
