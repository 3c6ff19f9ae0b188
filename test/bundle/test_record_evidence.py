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

"""What is measured goes into the manifest, and nothing else in it changes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_detector import write_tiny_bundle

from pruned_perception.bundle import Bundle, BundleError, load_bundle, record_evidence

MODELS = Path(__file__).resolve().parents[2] / 'models' / 'warehouse'


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return a bundle with two evaluations, which says μ in its provenance."""
    evaluation = [{'data': 'one', 'ap50': 0.5}, {'data': 'two', 'ap50': 0.6}]
    return write_tiny_bundle(
        tmp_path / 'bundle',
        evaluation=evaluation,
        provenance={'tool': 'μ', 'created': 'today', 'a': 1},
    )


def keys_of(value: Any) -> Any:
    """Return all keys in their order, nested."""
    if isinstance(value, dict):
        return [(key, keys_of(each)) for key, each in value.items()]
    return [keys_of(each) for each in value] if isinstance(value, list) else None


def test_an_entry_takes_the_place_of_the_one_with_its_keys(bundle: Bundle) -> None:
    before = load_bundle(bundle.path).manifest
    record_evidence(bundle, 'evaluation', {'ap50': 0.7, 'data': 'one'}, keys=('data',))
    after = load_bundle(bundle.path).manifest
    assert after['evaluation'] == [{'data': 'one', 'ap50': 0.7}, {'data': 'two', 'ap50': 0.6}]
    assert keys_of(after) == keys_of(before)
    assert {**after, 'evaluation': before['evaluation']} == before
    record_evidence(bundle, 'evaluation', {'data': 'three'}, keys=('data',))
    found = load_bundle(bundle.path).manifest['evaluation']
    assert [each['data'] for each in found] == ['one', 'two', 'three']
    record_evidence(bundle, 'latency', {'threads': 1, 'p50': (1.0, 2.0)})
    record_evidence(bundle, 'latency', {'threads': 1})
    assert load_bundle(bundle.path).manifest['latency'] == [
        {'threads': 1, 'p50': [1.0, 2.0]},
        {'threads': 1},
    ]


def test_a_certificate_replaces_the_former_one(bundle: Bundle) -> None:
    for rate in (0.1, 0.2):
        record_evidence(bundle, 'certificate', {'rate': rate, 'frames': 3})
        assert load_bundle(bundle.path).manifest['certificate'] == {'rate': rate, 'frames': 3}
    assert load_bundle(bundle.path).sha256 == bundle.sha256


@pytest.mark.parametrize('member', ['dense', 'half', 'quarter', 'sixth', 'tenth', 'twelfth'])
def test_recording_a_shipped_bundles_own_evidence_again_changes_no_byte(
    member: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(MODELS / member, tmp_path / member))
    bundle = load_bundle(folder)
    for section in ('evaluation', 'latency'):
        keys = {'evaluation': ('net', 'data'), 'latency': ('configuration',)}[section]
        for entry in bundle.manifest[section]:
            turned = dict(reversed(entry.items()))
            record_evidence(bundle, section, turned, keys=keys)  # type: ignore[arg-type]
    if bundle.manifest['certificate'] is not None:
        record_evidence(bundle, 'certificate', bundle.manifest['certificate'])
    original = (MODELS / member / 'manifest.json').read_bytes()
    assert (folder / 'manifest.json').read_bytes() == original

    entry = {**bundle.manifest['evaluation'][0], 'ap50': 0.123}
    record_evidence(bundle, 'evaluation', entry, keys=('net', 'data'))
    lines = (folder / 'manifest.json').read_text('utf-8').splitlines()
    before = original.decode().splitlines()
    assert len(lines) == len(before)
    changed = [line for line, other in zip(lines, before, strict=True) if line != other]
    assert [line.strip() for line in changed] == ['"ap50": 0.123,']


@pytest.mark.parametrize(
    ('entry', 'message'),
    [({'ap50': float('nan')}, 'NaN or infinity is no JSON'), ({'ap50': float('inf')}, 'NaN or')],
)
def test_what_cannot_be_written_leaves_the_manifest(
    bundle: Bundle, entry: dict[str, float], message: str
) -> None:
    before = bundle.manifest_path.read_bytes()
    with pytest.raises(BundleError, match=rf'manifest\.json: {message}'):
        record_evidence(bundle, 'evaluation', entry)
    assert bundle.manifest_path.read_bytes() == before
    assert sorted(each.name for each in bundle.path.iterdir()) == ['manifest.json', 'model.onnx']


def test_a_damaged_manifest_is_not_written_over(bundle: Bundle) -> None:
    manifest = json.loads(bundle.manifest_path.read_text())
    manifest['labels'] = []
    text = json.dumps(manifest)
    bundle.manifest_path.write_text(text)
    with pytest.raises(BundleError, match='field labels: '):
        record_evidence(bundle, 'evaluation', {'data': 'one'}, keys=('data',))
    assert bundle.manifest_path.read_text() == text


def test_evidence_of_a_model_that_was_replaced_is_refused(bundle: Bundle) -> None:
    write_tiny_bundle(bundle.path, gain=20.0)
    with pytest.raises(BundleError, match=r'field onnx\.sha256: another model is there'):
        record_evidence(bundle, 'latency', {'p50': 1.0})
    shutil.rmtree(bundle.path)
    with pytest.raises(BundleError, match='cannot be written: No such file'):
        record_evidence(bundle, 'latency', {'p50': 1.0})


def test_records_at_the_same_time_are_all_kept(bundle: Bundle) -> None:
    def put(number: int) -> None:
        record_evidence(bundle, 'latency', {'run': number}, keys=('run',))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(40)))
    runs = [each['run'] for each in load_bundle(bundle.path).manifest['latency']]
    assert sorted(runs) == list(range(40))
