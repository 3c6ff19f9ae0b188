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

"""Our reading of the schema agrees with the `jsonschema` package, the reference."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_detector import tiny_manifest

from pruned_perception.bundle.manifest import schema
from pruned_perception.bundle.schema import errors

jsonschema = pytest.importorskip('jsonschema')

VALID = {
    **tiny_manifest(),
    'onnx': {'file': 'model.onnx', 'sha256': '0' * 64, 'bytes': 5},
    'parent': {'name': 'dense', 'sha256': 'a' * 64},
}

# Floats of integer value are integers to the standard and not to us; they are left out.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 20000)
    | st.floats(-2, 300).filter(lambda value: not value.is_integer())
    | st.text(max_size=5)
    | st.sampled_from(['uint8', 'NHWC', 'bgr', 'letterbox', 'center', '0' * 64, 'a-1.b', '']),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def places(value, path=()):
    """Yield the paths of all values inside."""
    yield path
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


def container(manifest, path):
    for key in path[:-1]:
        manifest = manifest[key]
    return manifest


def test_the_schema_is_a_schema_and_takes_a_valid_manifest():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert not list(errors(VALID, schema()))


@settings(max_examples=200)
@given(data=st.data())
def test_a_changed_manifest_is_judged_as_the_reference_judges_it(data):
    manifest = copy.deepcopy(VALID)
    path = data.draw(st.sampled_from(list(filter(None, places(manifest)))))
    change = data.draw(st.sampled_from(['replace', 'remove', 'add']))
    section = container(manifest, path)
    if change == 'replace':
        section[path[-1]] = data.draw(json_values)
    elif change == 'remove':
        del section[path[-1]]
    elif isinstance(section, dict):
        section[data.draw(st.text(max_size=5))] = data.draw(json_values)
    else:
        section.append(data.draw(json_values))
    reference = jsonschema.Draft202012Validator(schema())
    assert (not list(errors(manifest, schema()))) == reference.is_valid(manifest)


def test_an_integer_is_written_as_one():
    manifest = copy.deepcopy(VALID)
    manifest['thresholds']['max_detections'] = 100.0
    found = list(errors(manifest, schema()))
    assert found == [('thresholds.max_detections', '100.0 is no integer')]


def test_an_unknown_keyword_is_not_passed_over():
    with pytest.raises(NotImplementedError, match='uniqueItems'):
        list(errors(['text'], {'uniqueItems': True}))
