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

"""What certificates say, what they refuse, how they are extended, and what former ones say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.datasets.fingerprints import Fingerprints
from pruned_perception.pruning import PruningError, find_groups, slice_channels
from pruned_perception.pruning.calibration import fingerprint
from pruned_perception.pruning.certificate import (
    Certificate,
    FormerCertificate,
    certify,
    certify_counts,
    read_certificate,
)
from pruned_perception.pruning.eprocess import rate_bound

DRIVES = np.repeat(np.arange(40), 30)


def changed_frames(rate: float, seed: int = 0) -> np.ndarray:
    """Return 1,200 decisions of 40 drives that differ (intra-class correlation 0.1)."""
    generator = np.random.default_rng(seed)
    own = generator.beta(rate * 9, (1 - rate) * 9, 40)
    return generator.random(1200) < own[DRIVES]


def frames(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def batches(count: int = 60, size: int = 16) -> list[Tensor]:
    return list(frames(count).split(size))


def pruned_pair() -> tuple[nn.Module, nn.Module]:
    model = networks.build(networks.Flatten)
    with torch.no_grad():  # so that no class wins on every frame
        model.get_submodule('head').bias -= model(frames(60)).mean(0)
    groups = find_groups(model, networks.INPUT).prunable
    kept = {group.name: range(0, group.channels, 2) for group in groups}
    return model, slice_channels(model, networks.INPUT, kept)


class Scores(nn.Module):
    """Scores of two classes straight from an image's first two values."""

    def __init__(self, shift: float = 0.0, noise: float = 0.0, broken_at: float = 2.0) -> None:
        super().__init__()
        self.shift, self.noise, self.broken_at = shift, noise, broken_at

    def forward(self, x: Tensor) -> Tensor:
        scores = x[:, 0, 0, :2] + torch.tensor([self.shift, 0.0])
        scores = scores.masked_fill(scores.amax(dim=1, keepdim=True) > self.broken_at, torch.nan)
        return functional.dropout(scores, self.noise, training=True)


def certified(model: nn.Module, small: nn.Module, holdout: Any, **options: Any) -> Certificate:
    """Return the certificate of frames of drives of fifteen, if they are 60."""
    return certify(
        model, small, holdout,
        **{'used': {}, 'clusters': np.arange(60) // 5, 'longest': 5, **options},
    )  # fmt: skip


def counted(changed: np.ndarray, drives: np.ndarray | None = DRIVES, **options: Any) -> Certificate:
    """Return the certificate of frames of which it is known whether they changed."""
    return certify_counts(
        {'changed': (changed.astype(int), np.ones(len(changed), int))},
        **{
            'clusters': drives, 'longest': 30, 'used': {},
            'holdout': Fingerprints.of(k.to_bytes(6, 'big') for k in range(len(changed))),
            **options,
        },
    )  # fmt: skip


def test_certificate_counts_the_decisions_that_differ() -> None:
    model, small = pruned_pair()
    inputs = frames(60)
    with torch.no_grad():
        wanted = (model(inputs).argmax(1) != small(inputs).argmax(1)).numpy()
    assert 0 < wanted.sum() < 60, 'nothing would be proved'
    found = certified(model, small, batches())
    changed = found.headline
    assert found.frames == 60
    assert list(found.statements) == ['changed']
    assert changed.events == tuple(wanted.reshape(12, 5).sum(1))
    assert changed.counts == (5,) * 12
    assert changed.rate == wanted.mean()
    assert changed.bound == rate_bound(changed.events, changed.counts, longest=5)
    assert found.holdout_sha256 == fingerprint(batches())
    alone = certified(model, small, batches(), clusters=None, longest=None)
    assert alone.headline.bound == rate_bound(wanted.astype(int), np.ones(60), longest=1)


def test_certificate_does_not_depend_on_the_batches_and_takes_a_generator() -> None:
    def stream() -> Iterator[Tensor]:
        yield from batches(size=7)

    model, small = pruned_pair()
    assert certified(model, small, stream()) == certified(model, small, batches())


def test_negative_flips_count_where_only_the_parent_is_right() -> None:
    model, small = pruned_pair()
    inputs = frames(60)
    with torch.no_grad():
        parent, child = model(inputs).argmax(1), small(inputs).argmax(1)
    labels = parent.clone()
    labels[::2] = child[::2]  # there the child is right
    flips = ((parent == labels) & (child != labels)).numpy()
    assert 0 < flips.sum() < (parent != child).sum()
    found = certified(model, small, batches(), labels=labels)
    assert found.statements['negative_flips'].events == tuple(flips.reshape(12, 5).sum(1))
    assert 'negative flips' in found.to_text()
    with pytest.raises(PruningError, match='59 for 60 frames'):
        certified(model, small, batches(), labels=labels[:59])


def test_users_say_when_two_outputs_are_different_decisions() -> None:
    model, small = networks.build(networks.Residual), networks.build(networks.Transposed)
    with pytest.raises(PruningError, match='`decide`'):
        certified(model, small, batches())

    def larger(parent: Tensor, child: Tensor) -> Tensor:
        return parent.mean((1, 2, 3)) > child.mean((1, 2, 3))

    with torch.no_grad():
        wanted = larger(model(frames(60)), small(frames(60))).float().mean()
    assert certified(model, small, batches(), decide=larger).headline.rate == pytest.approx(wanted)


def objects(seed: int = 0, drives: int = 20) -> dict[str, Any]:
    """Return counts of objects, six frames a drive."""
    generator = np.random.default_rng(seed)
    every = generator.integers(1, 9, 6 * drives)
    missed, invented, gained = (generator.binomial(every, p) for p in (0.1, 0.05, 0.2))
    changed = generator.random(6 * drives) < 0.3
    return {
        'missed': (missed, every),
        'invented': (invented, every),
        'gained': (gained, every),
        'changed': (changed.astype(int), np.ones(6 * drives, int)),
    }


TERMS = {
    'objects': 'score ≥ 0.4, IoU ≥ 0.5, no dead-band',
    'frames': 'score ≥ 0.4, IoU ≥ 0.5, dead-band ±0.1',
}


def of_objects(seed: int = 0, drives: int = 20, **options: Any) -> Certificate:
    names = [f'seed {seed}, drive {k // 6}' for k in range(6 * drives)]
    pictures = [f'{seed}/{k:04}'.encode() for k in range(6 * drives)]
    counts = objects(seed, drives)
    some = np.arange(6 * drives) % 3 == 0
    return certify_counts(
        counts,
        **{
            'clusters': names,
            'longest': {'frames': 6, 'objects': 48, 'small': 20},
            'terms': TERMS,
            'slices': {
                'small': tuple(each * some for each in counts['missed']),
                'never': (np.zeros(6 * drives, int), np.zeros(6 * drives, int)),
            },
            'holdout': Fingerprints.of(pictures, names),
            'used': {'the training data': Fingerprints.of([b'other'], ['a drive'])},
            'record': {'parent': {'sha256': 'p'}, 'child': {'sha256': 'c'}},
            **options,
        },
    )


def test_the_headline_has_the_confidence_and_others_share_it() -> None:
    found = of_objects()
    missed, *others = found.statements.values()
    assert missed is found.headline
    assert missed.confidence == 0.95
    assert [each.confidence for each in others] == pytest.approx([1 - 0.05 / 3] * 3)
    assert [each.longest for each in found.statements.values()] == [48, 48, 48, 6]
    for each in found.statements.values():
        assert each.bound == rate_bound(
            each.events, each.counts, longest=each.longest, confidence=each.confidence,
            side=each.side,
        )  # fmt: skip
    gained = found.statements['gained']
    assert gained.bound is not None
    assert gained.rate is not None
    assert gained.bound < gained.rate
    small = found.slices['small']
    assert (small.longest, small.confidence) == (20, pytest.approx(1 - 0.05 / 2))


def test_every_sentence_carries_threshold_overlap_and_band() -> None:
    found = of_objects()
    first, seen, assumption, things, pictures, novelty = found.paragraphs()
    assert first.startswith(f'Misses {found.headline.bound_text} of the objects that')
    assert first.count(TERMS['objects']) == 1
    assert 'proven at 95%; certified on 20 drives; ' in first
    assert 'more like these would give ' in first
    assert 'independently' in assumption
    assert 'none has more than 48 objects or 48 detections or 6 frames, as declared' in assumption
    assert things.count(TERMS['objects']) == 2
    assert pictures.startswith('Frames, all such lines together at 95%')
    assert pictures.count(TERMS['frames']) == 1
    assert seen.startswith(f'Seen: {sum(found.headline.events)} of ')
    assert 'shares no frame and no named drive with: the training data' in novelty


def test_upper_bounds_are_rounded_up_and_lower_ones_down() -> None:
    for seed in range(20):
        for each in of_objects(seed).statements.values():
            stated = float(each.bound_text.split()[-1].rstrip('%')) / 100
            assert each.bound is not None
            if each.side == 'upper':
                assert each.bound - 1e-9 <= stated < each.bound + 0.001
            else:
                assert each.bound - 0.001 < stated <= each.bound + 1e-9


def test_more_drives_are_added_as_if_they_had_been_there() -> None:
    one, two = of_objects(0), of_objects(1, drives=9)
    both = one.extended(two)
    assert len(both.drives) == 29
    assert both.frames == one.frames + two.frames
    for name, each in both.statements.items():
        parts = one.statements[name], two.statements[name]
        assert each.bound == rate_bound(
            parts[0].events + parts[1].events, parts[0].counts + parts[1].counts,
            longest=each.longest, confidence=each.confidence, side=each.side,
        )  # fmt: skip
    assert both.holdout.pictures == one.holdout.pictures | two.holdout.pictures
    again = both.extended(of_objects(2))
    assert len(again.drives) == 49
    assert Certificate.from_dict(json.loads(json.dumps(again.to_dict()))) == again


def test_what_cannot_be_added_is_refused() -> None:
    one = of_objects(0)
    with pytest.raises(PruningError, match=r'120 of the 120 frames .* in the drives that it is'):
        one.extended(of_objects(0))
    other = {'parent': {'sha256': 'p'}, 'child': {'sha256': 'another'}}
    for options, name in (
        ({'record': other}, 'pair of networks'),
        ({'longest': {'frames': 6, 'objects': 99, 'small': 20}}, 'statements'),
        ({'terms': {'objects': 'score ≥ 0.3'}}, 'statements'),
        ({'unit': 'venue'}, 'unit'),
        ({'slices': {}, 'longest': {'frames': 6, 'objects': 48}}, 'slices'),
        ({'confidence': 0.9}, 'statements'),
    ):
        with pytest.raises(PruningError, match=f'are of other {name}'):
            one.extended(of_objects(1, **options))


def test_a_drive_longer_than_declared_is_refused_and_named() -> None:
    with pytest.raises(PruningError, match=r'changed: drive 0 has 30 frames, declared .* 29'):
        counted(changed_frames(0.05), longest=29)
    with pytest.raises(PruningError, match=r'declare the longest drive .* in frames'):
        counted(changed_frames(0.05), longest=None)
    with pytest.raises(PruningError, match='longest drive: smal is not counted'):
        of_objects(longest={'frames': 6, 'objects': 48, 'smal': 20})


def test_one_drive_certifies_nothing_and_two_say_how_little() -> None:
    with pytest.raises(PruningError, match='one drive says nothing of how drives differ'):
        counted(np.zeros(30, bool), np.zeros(30, int))
    found = counted(np.zeros(60, bool), np.repeat([0, 1], 30))
    few, headline, *_ = found.paragraphs()
    assert few.startswith(
        'Of a new drive this says next to nothing: 2 drives of the declared length, without a '
        'single event, would prove no less than 80.4%, and 10.0% takes 33.'
    )
    assert headline.startswith('Decides differently on at most 80.')
    assert 'certified on 2 drives' in headline
    enough = counted(np.zeros(600, bool), np.repeat(range(20), 30))
    assert enough.paragraphs()[0].startswith('Decides differently on at most 15.')


def test_few_drives_are_told_apart_and_the_bound_is_of_none_alone() -> None:
    changed = np.zeros(60, bool)
    changed[:3] = changed[30:45] = True
    found = counted(changed, np.repeat(['hall', 'yard'], 30))
    (seen,) = [each for each in found.paragraphs() if each.startswith('Seen: ')]
    assert 'from 10.0% (drive hall) to 50.0% (drive yard): the bound is of all frames' in seen
    assert 'yard   15 of 30 (50.0%)' in found.to_text()
    many = counted(np.tile(changed, 20), np.repeat(range(40), 30))
    assert 'may well be above it' not in '\n'.join(many.paragraphs())
    assert 'Seen in each' not in many.to_text()


def test_events_that_no_drive_shows_are_said_to_prove_nothing() -> None:
    found = of_objects()
    never = found.slices['never']
    assert never.bound is None
    assert never.rate is None
    assert 'nothing to judge by' in found.to_text()
    assert found.worst_slice == 'small'
    nothing = np.zeros(120, int)
    counts = {**objects(), 'invented': (nothing, nothing)}
    text = certify_counts(
        counts, clusters=np.arange(120) // 6, longest={'frames': 6, 'objects': 48}, used={},
        holdout=Fingerprints(),
    ).to_text()  # fmt: skip
    assert 'nothing is proven, no drive shows any' in text


def test_certificate_survives_plain_data_and_is_not_edited() -> None:
    found = of_objects()
    data = json.loads(json.dumps(found.to_dict()))
    assert read_certificate(data) == found
    assert data['version'] == 2
    edited = json.loads(json.dumps(data))
    edited['statements']['missed']['bound'] = 0.01
    with pytest.raises(PruningError, match=r'the bound 0.01 is not that of its drives'):
        Certificate.from_dict(edited)
    for broken in (
        {'version': 3}, {'unit': 'drive'}, {**data, 'statements': {}}, {**data, 'holdout': {}}, 3,
    ):  # fmt: skip
        with pytest.raises(PruningError, match=r'certificate'):
            read_certificate(broken)


def test_former_certificates_are_shown_as_what_they_are() -> None:
    rate = {'frames': 2000, 'clusters': 100, 'rate': 0.0615, 'bound': 0.0912}
    record = {'score_threshold': 0.4, 'dead_band': 0.1, 'iou_threshold': 0.5}
    data = {
        'unit': 'layout', 'confidence': 0.95, 'changed': rate, 'negative_flips': rate,
        'slices': {'dark': rate}, 'record': record,
    }  # fmt: skip
    found = read_certificate(data)
    assert isinstance(found, FormerCertificate)
    assert found.to_dict() == data
    text = found.to_text()
    assert text.count('dead-band of ±0.1: a network counts as seeing from 0.5 on') == 2
    assert 'at most 9.2% of the frames' in text
    assert 'of equal length only' in text


EIGHT_WAYS = {
    'the same frames': lambda x: x,
    'in another order': lambda x: x.flip(0),
    'one frame fewer': lambda x: x[:-1],
    'a few of them among others': lambda x: torch.cat([frames(57, seed=5), x[:3]]),
}


@pytest.mark.parametrize('way', EIGHT_WAYS)
def test_inputs_that_were_used_are_refused_whatever_their_order_and_number(way: str) -> None:
    model, small = pruned_pair()
    holdout = EIGHT_WAYS[way](frames(60))
    options = {'clusters': None, 'longest': None, 'used': {'the calibration set': batches()}}
    with pytest.raises(PruningError, match=r'are in the calibration set.*never share frames'):
        certified(model, small, list(holdout.split(16)), **options)
    certified(model, small, list(frames(60, seed=1).split(16)), **options)


def test_that_nothing_was_compared_is_said() -> None:
    assert 'not checked that nothing was fitted' in counted(changed_frames(0.05)).to_text()
    with pytest.raises(TypeError, match='used'):
        certify(*pruned_pair(), batches(), clusters=None)  # type: ignore[call-arg]
    unknown = of_objects(used={'the training of dense': None})
    assert 'not checked, nothing is recorded of: the training of dense' in unknown.to_text()


def test_other_frames_of_a_drive_that_was_used_are_refused() -> None:
    used = {'the training data': Fingerprints.of([b'other'], ['seed 0, drive 3', 'elsewhere'])}
    with pytest.raises(PruningError, match=r'seed 0, drive 3 of the hold-out: .* training data'):
        of_objects(used=used)
    numbers = Fingerprints.of([b'other'], ['0', '1'])  # each set counts its drives from 0
    counted(changed_frames(0.05), used={'the training data': numbers})


@pytest.mark.parametrize('path', [['calibration_sha256'], ['threshold', 'sets']])
def test_holdout_that_the_record_names_is_refused(path: list[str]) -> None:
    model, small = pruned_pair()
    record: Any = fingerprint(batches())
    for name in reversed(path):
        record = {name: record}
    with pytest.raises(PruningError, match='never share frames') as caught:
        certified(model, small, batches(), record=record)
    assert path[-1] in str(caught.value)
    certified(model, small, list(frames(60, seed=1).split(16)), record=record)


def test_empty_holdouts_are_refused() -> None:
    model, small = pruned_pair()
    for nothing in ([], [frames(0)]):
        with pytest.raises(PruningError, match=r'hold-out set: empty|no frame'):
            certified(model, small, nothing)
    with pytest.raises(PruningError, match='no frame'):
        counted(np.zeros(0, bool), None)


def test_outputs_that_are_nan_are_refused_and_located() -> None:
    tame, wild = Scores(), Scores(broken_at=1.5)
    inputs = [frames(4), 2 * frames(4)]
    with pytest.raises(PruningError, match='parent returns NaN on batch 1'):
        certified(wild, tame, inputs)
    with pytest.raises(PruningError, match='pruned network returns NaN on batch 1'):
        certified(tame, wild, inputs)
    with pytest.raises(PruningError, match='batch 0 has values that are NaN'):
        certified(tame, tame, [frames(4) * torch.nan])


def test_networks_that_answer_differently_each_time_are_refused() -> None:
    for model, small, name in (
        (Scores(noise=0.5), Scores(), 'parent'),
        (Scores(), Scores(noise=0.5), 'pruned network'),
    ):
        with pytest.raises(PruningError, match=f'{name} returns something else'):
            certified(model, small, batches())


def test_networks_run_in_evaluation_mode_and_get_theirs_back() -> None:
    model, small = pruned_pair()
    wanted = certified(model, small, batches())
    model.train()
    frozen = next(each for each in model.modules() if isinstance(each, nn.BatchNorm2d)).eval()
    small.train()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert certified(model, small, batches()) == wanted
    assert model.training
    assert small.training
    assert not frozen.training
    after = small.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_lengths_that_differ_are_refused() -> None:
    changed, short = np.zeros(10, bool), np.zeros(9, int)
    for options, name in (
        ({'clusters': np.zeros(11)}, 'clusters'),
        ({'clusters': np.zeros(9)}, 'clusters'),
        ({'slices': {'night': (short, short)}}, "slice 'night': must be"),
    ):
        with pytest.raises(PruningError, match=name):
            counted(changed, **{'clusters': np.arange(10) // 2, **options})
    with pytest.raises(PruningError, match='batch 0: decide: 3 values for 16'):
        certified(*pruned_pair(), batches(), decide=lambda a, b: torch.zeros(3, dtype=torch.bool))


def test_what_is_not_whole_numbers_is_refused() -> None:
    ones = np.ones(10, int)
    for bad in ((ones * 0.5, ones), (2 * ones, ones), (-ones, ones), (ones[:, None], ones)):
        with pytest.raises(PruningError, match='whole events and counts'):
            certify_counts(
                {'changed': bad}, clusters=np.arange(10) // 2, longest=2, used={},
                holdout=Fingerprints(),
            )  # fmt: skip
    with pytest.raises(PruningError, match='nothing was counted'):
        certify_counts({}, clusters=None, longest=1, used={}, holdout=Fingerprints())


@pytest.mark.parametrize('confidence', [0, 1, 95])
def test_confidence_outside_0_1_is_refused(confidence: float) -> None:
    with pytest.raises(PruningError, match='confidence'):
        counted(np.zeros(1200, bool), confidence=confidence)
