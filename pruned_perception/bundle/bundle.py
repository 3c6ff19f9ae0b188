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

"""Bundles and families on disk: loading, verification, writing."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pruned_perception._io import errors_of_writing, replacing
from pruned_perception.bundle import signature
from pruned_perception.bundle.manifest import (
    BundleError,
    Cost,
    InputSpec,
    OutputSpec,
    Thresholds,
    contract_sha256,
    input_spec,
    output_spec,
    validate,
)
from pruned_perception.bundle.reading import (
    MOST_JSON_BYTES,
    exists,
    parse_json,
    read_file,
    shortened,
)

MANIFEST = 'manifest.json'
MOST_MODEL_BYTES = 2**31 - 1  # protobuf's own limit


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `onnx_bytes` are the very bytes whose hash was checked."""

    path: Path
    name: str
    onnx_path: Path
    onnx_bytes: bytes = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    input: InputSpec
    output: OutputSpec
    labels: tuple[str, ...]
    thresholds: Thresholds
    cost: Cost

    @property
    def sha256(self) -> str:
        """SHA-256 of the ONNX file, lower-case hexadecimal."""
        return self.manifest['onnx']['sha256']

    @property
    def manifest_path(self) -> Path:
        """The manifest's file."""
        return self.path / MANIFEST


@dataclass(frozen=True)
class Family:
    """Bundles of one parent and one label set, ordered by MACs, largest (dense) first."""

    path: Path
    members: tuple[Bundle, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set that all members share."""
        return self.members[0].labels

    @property
    def in_float(self) -> tuple[Bundle, ...]:
        """The members that every processor can run: those in 8 bits may be for others."""
        return tuple(each for each in self.members if 'quantization' not in each.manifest)

    def member(self, name: str = '') -> Bundle:
        """Return the member of that name; '' is the dense one.

        Raises BundleError, with the names that there are.
        """
        names = [bundle.name for bundle in self.members]
        return self.members[_index_of(name, names, self.path)]

    @property
    def by_accuracy(self) -> tuple[Bundle, ...]:
        """The members, most accurate first: by AP50:95 on data that all were evaluated on.

        Where there is no such data, or a tie, more MACs count as more accurate.
        """
        found = [_accuracies(bundle) for bundle in self.members]
        common = sorted(set.intersection(*(set(each) for each in found)))
        if not common:
            return self.members
        ranked = sorted(range(len(found)), key=lambda i: (-found[i][common[0]], i))
        return tuple(self.members[i] for i in ranked)


def _accuracies(bundle: Bundle) -> dict[str, float]:
    """Return AP50:95 of the bundle's own net: hash of the annotations → value."""
    return {
        each['annotations_sha256']: float(each['ap50_95'])
        for each in bundle.manifest['evaluation']
        if each.get('net') == 'member' and {'annotations_sha256', 'ap50_95'} <= each.keys()
    }


def load_bundle(path: str | os.PathLike[str], *, trusted_keys: Sequence[str] = ()) -> Bundle:
    """Read and verify the bundle in the folder `path`.

    With `trusted_keys` (see `signature.trusted_keys`) it must be signed by one of them.

    Raises
    ------
    BundleError
        File missing or unreadable, manifest against the schema, a model whose size or hash is
        not the manifest's, no signature by a trusted key; names the file, the field and the way
        out.

    """
    folder = Path(path).expanduser()
    _refuse_what_is_no_bundle(folder)
    return _load_model(folder, _read_manifest(folder, trusted_keys))


def is_family(path: str | os.PathLike[str]) -> bool:
    """Tell whether `path` is a folder of bundles (and not a bundle itself)."""
    folder = Path(path).expanduser()
    return (
        exists(folder)
        and folder.is_dir()
        and not exists(folder / MANIFEST)
        and bool(_member_folders(folder))
    )


def load_family(path: str | os.PathLike[str], *, trusted_keys: Sequence[str] = ()) -> Family:
    """Read and verify all bundles in the sub-folders of `path`.

    Raises
    ------
    BundleError
        As `load_bundle`; or other labels, two dense members or none, a parent that is not the
        dense member, two members of one name.

    """
    folder = Path(path).expanduser()
    members = _read_members(folder, trusted_keys)
    return Family(folder, tuple(_load_model(*member) for member in members))


def member_names(
    path: str | os.PathLike[str], *, trusted_keys: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the names of a family's members, dense first, or of a bundle; models are not read.

    Raises BundleError as `load_family`, but for what concerns the models.
    """
    folder = Path(path).expanduser()
    if is_family(folder):
        return tuple(manifest['name'] for _, manifest in _read_members(folder, trusted_keys))
    _refuse_what_is_no_bundle(folder)
    return (_read_manifest(folder, trusted_keys)['name'],)


def load_member(
    path: str | os.PathLike[str], member: str = '', *, trusted_keys: Sequence[str] = ()
) -> Bundle:
    """Read a bundle, or one member ('' is the dense one) of a family.

    Of a family all manifests are checked, but only that member's model is read. Raises BundleError
    as `load_bundle` and `load_family`; also where `member` is not the bundle.
    """
    if is_family(path):
        members = _read_members(Path(path).expanduser(), trusted_keys)
        names = [manifest['name'] for _, manifest in members]
        return _load_model(*members[_index_of(member, names, Path(path))])
    bundle = load_bundle(path, trusted_keys=trusted_keys)
    if member and member != bundle.name:
        raise BundleError(
            f'{bundle.path}: no member {member!r}: this is the single bundle {bundle.name!r}'
        )
    return bundle


def write_bundle(
    folder: str | os.PathLike[str], onnx_bytes: bytes, manifest: Mapping[str, Any]
) -> Bundle:
    """Write `onnx_bytes` and `manifest` to `folder`, and return the bundle as loaded from there.

    The section `onnx` (file, sha256, bytes) is filled in; an existing bundle is replaced. The
    manifest is validated before anything is written. Raises BundleError.
    """
    folder = Path(folder).expanduser()
    manifest_path = folder / MANIFEST
    complete = {
        **{name: value for name, value in manifest.items() if name != 'contract_sha256'},
        'onnx': {
            'file': 'model.onnx',
            'sha256': hashlib.sha256(onnx_bytes).hexdigest(),
            'bytes': len(onnx_bytes),
        },
    }
    plain = validate(json.loads(_json_text(complete, manifest_path)), manifest_path)
    plain['contract_sha256'] = contract_sha256(plain)
    text = _json_text(plain, manifest_path)
    with errors_of_writing(folder, BundleError):
        for path, data in ((folder / 'model.onnx', onnx_bytes), (manifest_path, text.encode())):
            with replacing(path) as temporary:
                temporary.write_bytes(data)
    return load_bundle(folder)


def record_evidence(
    bundle: Bundle,
    section: Literal['evaluation', 'latency', 'certificate'],
    entry: Mapping[str, Any],
    *,
    keys: Sequence[str] = (),
) -> None:
    """Put what was measured of `bundle` into its manifest on disk; the model stays as it is.

    A certificate takes the place of the former one. In the lists, `entry` takes the place of the
    one with equal values of `keys`, or comes last. Everything else keeps its place and order, and
    an entry that says nothing new leaves the file as it is. Several processes may record at once.

    Raises
    ------
    BundleError
        The manifest would not be valid, cannot be written, or is of another model by now.

    """
    file = bundle.manifest_path
    new = json.loads(_json_text(entry, file))  # as it will be read: tuples are lists
    with errors_of_writing(bundle.path, BundleError), _locked(bundle.path):
        before = _read_manifest(bundle.path)
        if before['onnx']['sha256'] != bundle.sha256:
            raise BundleError(
                f'{file}: field onnx.sha256: another model is there than the one that was '
                'measured; measure that'
            )
        if section == 'certificate':
            content: Any = _ordered_like(before[section] or {}, new)
        else:
            content = _replaced(before[section], new, keys)
        if content != before[section]:
            text = _json_text(validate({**before, section: content}, file), file)
            with replacing(file) as temporary:
                temporary.write_text(text, encoding='utf-8')


def _replaced(
    entries: Sequence[dict[str, Any]], new: dict[str, Any], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the entries with `new` in place of those with its `keys`, or as the last."""
    same = [bool(keys) and all(each.get(k) == new.get(k) for k in keys) for each in entries]
    if True not in same:
        return [*entries, new]
    place = same.index(True)
    rest = [each for each, replaced in zip(entries, same, strict=True) if not replaced]
    return [*rest[:place], _ordered_like(entries[place], new), *rest[place:]]


def _ordered_like(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: new[key] for key in old if key in new}, **new}


def _read_manifest(folder: Path, trusted_keys: Sequence[str] = ()) -> dict[str, Any]:
    file = folder / MANIFEST
    data = read_file(file, MOST_JSON_BYTES)
    if trusted_keys:
        signature.verify(file, data, trusted_keys)
    return validate(parse_json(data, file), file)


def _load_model(folder: Path, manifest: dict[str, Any]) -> Bundle:
    """Return the bundle with its model, whose size and hash are checked."""
    manifest_path = folder / MANIFEST
    onnx_path = folder / manifest['onnx']['file']
    if not exists(onnx_path):
        raise BundleError(
            f'{onnx_path}: no such file, though {manifest_path} names it in onnx.file; '
            'fetch the bundle again'
        )
    onnx_bytes = read_file(onnx_path, MOST_MODEL_BYTES)
    size = manifest['onnx']['bytes']
    if len(onnx_bytes) != size:
        what = 'truncated' if len(onnx_bytes) < size else 'altered'
        raise BundleError(
            f'{onnx_path}: {what}: {len(onnx_bytes)} bytes, but {manifest_path} says {size} in '
            'onnx.bytes; fetch the bundle again'
        )
    digest = hashlib.sha256(onnx_bytes).hexdigest()
    if digest != manifest['onnx']['sha256']:
        raise BundleError(
            f'{onnx_path}: altered: its SHA-256 is {digest}, but {manifest_path} says '
            f'{manifest["onnx"]["sha256"]} in onnx.sha256; fetch the bundle again'
        )
    return Bundle(
        path=folder,
        name=manifest['name'],
        onnx_path=onnx_path,
        onnx_bytes=onnx_bytes,
        manifest=manifest,
        input=input_spec(manifest),
        output=output_spec(manifest),
        labels=tuple(manifest['labels']),
        thresholds=Thresholds(**manifest['thresholds']),
        cost=Cost(**manifest['cost']),
    )


def _read_members(folder: Path, trusted_keys: Sequence[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Return folder and manifest of all members, dense first; they belong together."""
    if not is_family(folder):
        raise BundleError(
            f'{folder}: not a family: a folder whose sub-folders hold a {MANIFEST} each'
        )
    members = [(each, _read_manifest(each, trusted_keys)) for each in _member_folders(folder)]
    members.sort(key=lambda member: _order(member[1]))
    names = [manifest['name'] for _, manifest in members]
    dense = [manifest for _, manifest in members if manifest['parent'] is None]
    if len(dense) != 1:
        raise BundleError(
            f'{folder}: exactly one member of a family has no parent (field parent: null); '
            f'here: {", ".join(manifest["name"] for manifest in dense) or "none"}'
        )
    for path, manifest in members:
        _check_member(path / MANIFEST, manifest, dense[0])
        if names.count(manifest['name']) > 1:
            raise BundleError(
                f'{path / MANIFEST}: field name: {manifest["name"]!r} is there twice in {folder}'
            )
    first_path, first = members[0]
    if first is not dense[0]:
        raise BundleError(
            f'{first_path / MANIFEST}: field cost.macs: {first["cost"]["macs"]} is more than the '
            f'{dense[0]["cost"]["macs"]} of its parent {dense[0]["name"]}'
        )
    return members


def _order(manifest: Mapping[str, Any]) -> tuple[int, bool, bool, str]:
    """Return the place in a family: by MACs; of as many, the parent first and INT8 last."""
    quantized = 'quantization' in manifest
    return -manifest['cost']['macs'], manifest['parent'] is not None, quantized, manifest['name']


def _check_member(file: Path, manifest: Mapping[str, Any], dense: Mapping[str, Any]) -> None:
    if manifest['labels'] != dense['labels']:
        raise BundleError(
            f'{file}: field labels: not those of {dense["name"]}, the dense member of the family'
        )
    parent, sha256 = manifest['parent'], dense['onnx']['sha256']
    if parent is not None and parent['sha256'] != sha256:
        raise BundleError(
            f'{file}: field parent.sha256: {parent["sha256"]} is not the model of '
            f'{dense["name"]}, the dense member ({sha256})'
        )


def _index_of(name: str, names: list[str], folder: Path) -> int:
    """Return the place of the member; '' is the first, the dense one."""
    if not name:
        return 0
    if name not in names:
        raise BundleError(f'{folder}: no member {name!r} in this family; it has {", ".join(names)}')
    return names.index(name)


def _member_folders(folder: Path) -> list[Path]:
    return sorted(manifest.parent for manifest in folder.glob(f'*/{MANIFEST}'))


def _refuse_what_is_no_bundle(folder: Path) -> None:
    if not exists(folder):
        raise BundleError(f'{shortened(folder)}: no such bundle: the folder does not exist')
    if folder.is_file():
        bundle_folder = folder.parent
        if (bundle_folder / MANIFEST).is_file():
            raise BundleError(f'{folder}: give the bundle, the folder {bundle_folder}')
        if folder.suffix == '.onnx':
            raise BundleError(_no_manifest(folder))
        raise BundleError(f'{folder}: not a bundle: a folder with {MANIFEST} and an ONNX file')
    if exists(folder / MANIFEST):
        return
    if is_family(folder):
        names = ', '.join(member.name for member in _member_folders(folder))
        raise BundleError(f'{folder}: a family, not a bundle; choose a member: {names}')
    for onnx_path in sorted(folder.glob('*.onnx')):
        raise BundleError(_no_manifest(onnx_path))
    raise BundleError(f'{folder}: not a bundle: there is no {MANIFEST} in it')


def _no_manifest(onnx_path: Path) -> str:
    return (
        f'{onnx_path}: an ONNX model without {MANIFEST}, which says what its input and outputs '
        f'mean; make a bundle of it with `pruned-perception bundle create {onnx_path} …`'
    )


def _json_text(value: Mapping[str, Any], file: Path) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    except ValueError as error:
        raise BundleError(f'{file}: NaN or infinity is no JSON: {error}') from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system frees with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
