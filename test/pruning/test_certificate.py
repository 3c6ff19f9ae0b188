"""What certificates say, what they refuse, and whether other frames contradict them."""

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

from pruned_perception.pruning import PruningError, find_groups, slice_channels
from pruned_perception.pruning.calibration import fingerprint
from pruned_perception.pruning.certificate import (
    Certificate,
    certify,
    certify_decisions,
)
from pruned_perception.pruning.statistics import clopper_pearson, cluster_bootstrap

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


def test_certificate_counts_the_decisions_that_differ() -> None:
    model, small = pruned_pair()
    inputs = frames(60)
    with torch.no_grad():
        wanted = (model(inputs).argmax(1) != small(inputs).argmax(1)).numpy()
    assert 0 < wanted.sum() < 60, 'nothing would be proved'
    found = certify(model, small, batches())
    assert found.frames == 60
    assert found.changed.rate == wanted.mean()
    assert found.changed.bound == clopper_pearson(wanted.sum(), 60)
    assert found.holdout_sha256 == fingerprint(batches())
    assert found.negative_flips is None
    assert found.clusters is None
    assert found.effective_frames == 60


def test_certificate_does_not_depend_on_the_batches_and_takes_a_generator() -> None:
    def stream() -> Iterator[Tensor]:
        yield from batches(size=7)

    model, small = pruned_pair()
    assert certify(model, small, stream()) == certify(model, small, batches())


def test_negative_flips_count_where_only_the_parent_is_right() -> None:
    model, small = pruned_pair()
    inputs = frames(60)
    with torch.no_grad():
        parent, child = model(inputs).argmax(1), small(inputs).argmax(1)
    labels = parent.clone()
    labels[::2] = child[::2]  # there the child is right
    flips = ((parent == labels) & (child != labels)).numpy()
    assert 0 < flips.sum() < (parent != child).sum()
    found = certify(model, small, batches(), labels=labels)
    assert found.negative_flips is not None
    assert found.negative_flips.rate == flips.mean()
    assert found.negative_flips.bound == clopper_pearson(flips.sum(), 60)
    assert 'negative flips' in found.to_text()
    with pytest.raises(PruningError, match='59 for 60 frames'):
        certify(model, small, batches(), labels=labels[:59])


def test_users_say_when_two_outputs_are_different_decisions() -> None:
    model, small = networks.build(networks.Residual), networks.build(networks.Transposed)
    with pytest.raises(PruningError, match='`decide`'):
        certify(model, small, batches())

    def larger(parent: Tensor, child: Tensor) -> Tensor:
        return parent.mean((1, 2, 3)) > child.mean((1, 2, 3))

    with torch.no_grad():
        wanted = larger(model(frames(60)), small(frames(60))).float().mean()
    assert certify(model, small, batches(), decide=larger).changed.rate == pytest.approx(wanted)


def test_bound_of_drives_is_the_bootstraps_and_described_by_the_effective_size() -> None:
    changed = changed_frames(0.05)
    found = certify_decisions(changed, clusters=DRIVES)
    assert found.changed.bound == cluster_bootstrap(changed, DRIVES)
    assert found.changed.bound > clopper_pearson(changed.sum(), 1200)
    assert found.clusters == 40
    assert found.icc is not None
    assert 0 < found.icc < 0.5
    assert found.effective_frames == pytest.approx(1200 / (1 + 29 * found.icc))


def test_text_is_plain_and_never_rounds_a_bound_down() -> None:
    found = certify_decisions(changed_frames(0.05), clusters=DRIVES, unit='venue')
    text = found.to_text()
    assert '1,200 frames from 40 venues' in text
    assert f'decided differently on {found.changed.rate:.1%} of them' in text
    assert 'of the frames of new venues like these' in text
    assert 'No certificate' not in text
    assert 'The bounds count whole venues' in text
    stated = float(text.split('at most ')[1].split('%')[0]) / 100
    assert found.changed.bound <= stated < found.changed.bound + 0.001
    assert 'at most 0.1% of' in certify_decisions(np.zeros(3000, bool)).to_text()


@pytest.mark.parametrize(('drives', 'valid'), [(1, False), (9, False), (10, True)])
def test_fewer_than_ten_drives_certify_nothing_about_new_venues(drives: int, valid: bool) -> None:
    changed = np.arange(drives * 30) % 11 == 0
    found = certify_decisions(changed, clusters=np.repeat(np.arange(drives), 30))
    assert found.for_new_venues is valid
    assert found.to_dict()['for_new_venues'] is valid
    assert ('No certificate for new venues' in found.to_text()) is not valid
    assert ('of new drives like these' in found.to_text()) is valid


def test_frames_without_drives_certify_nothing_about_new_venues() -> None:
    found = certify_decisions(changed_frames(0.05))
    assert not found.for_new_venues
    assert 'No certificate for new venues' in found.to_text()


def test_slices_are_bounded_at_once_and_the_worst_is_named() -> None:
    changed = np.arange(1000) % 20 == 0  # 5 %
    changed[:200] = np.arange(200) % 4 == 0  # 25 %
    night = np.arange(1000) < 200
    slices = {'night': night, 'day': ~night, 'all': np.ones(1000, bool), 'first': night}
    found = certify_decisions(changed, slices=slices)
    assert found.worst_slice == 'night'
    for name, chosen in slices.items():
        each = found.slices[name]
        exact = clopper_pearson(changed[chosen].sum(), chosen.sum(), confidence=1 - 0.05 / 4)
        assert each.frames == chosen.sum()
        assert each.rate == changed[chosen].mean()
        assert each.bound == pytest.approx(exact)
    assert found.slices['all'].bound > found.changed.bound
    assert 'Worst slice: night' in found.to_text()
    assert certify_decisions(changed).worst_slice is None


def test_slices_of_few_drives_are_marked() -> None:
    slices = {'here': DRIVES < 3, 'there': DRIVES >= 3}
    found = certify_decisions(changed_frames(0.05), clusters=DRIVES, slices=slices)
    assert (found.slices['here'].clusters, found.slices['there'].clusters) == (3, 37)
    assert 'nothing certified about new ones: here.' in found.to_text()


def test_frames_like_the_certified_ones_do_not_contradict_it() -> None:
    found = certify_decisions(changed_frames(0.05), clusters=DRIVES)
    for seed in range(1, 16):
        check = found.check(changed_frames(0.05, seed), clusters=DRIVES)
        assert not check.contradicted
        assert 'stands' in check.to_text() or 'may be chance' in check.to_text()


def test_frames_that_violate_the_bound_contradict_it() -> None:
    found = certify_decisions(changed_frames(0.05), clusters=DRIVES)
    check = found.check(changed_frames(0.5, seed=1), clusters=DRIVES)
    assert check.contradicted
    assert check.lower_bound > check.certified_bound == found.changed.bound
    assert 'does not hold for frames like these' in check.to_text()


def test_one_bad_drive_does_not_contradict_an_average_over_drives() -> None:
    found = certify_decisions(changed_frames(0.05), clusters=DRIVES)
    check = found.check(np.ones(200, bool), clusters=np.zeros(200, int))
    assert not check.contradicted
    assert 'may be chance' in check.to_text()
    assert found.check(np.ones(200, bool)).contradicted  # if each were a drive of its own


def test_contradictions_by_chance_are_rarer_than_the_confidence_allows() -> None:
    generator = np.random.default_rng(0)
    false_alarms = 0
    for _ in range(500):
        one, other = generator.random((2, 300)) < 0.1
        false_alarms += certify_decisions(one).check(other).contradicted
    assert false_alarms <= 5


def test_certificate_survives_plain_data() -> None:
    found = certify_decisions(
        changed_frames(0.05),
        negative_flips=changed_frames(0.02),
        clusters=DRIVES,
        slices={'all': np.ones(1200, bool)},
        holdout_sha256='ab',
        record={'seed': 3, 'delta': 0.1, 'kept': {'stem': [1, 2]}, 'calibration_sha256': 'cd'},
    )
    assert Certificate.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.record['delta'] == 0.1
    assert found.versions['torch'] == torch.__version__
    assert 'delta: 0.1' in found.to_text()
    with pytest.raises(PruningError, match='not a certificate'):
        Certificate.from_dict({'unit': 'drive'})


@pytest.mark.parametrize('path', [['calibration_sha256'], ['threshold', 'sets']])
def test_holdout_that_was_used_before_is_refused(path: list[str]) -> None:
    model, small = pruned_pair()
    record: Any = fingerprint(batches())
    for name in reversed(path):
        record = {name: record}
    with pytest.raises(PruningError, match='never share frames') as caught:
        certify(model, small, batches(), record=record)
    assert path[-1] in str(caught.value)
    certify(model, small, list(frames(60, seed=1).split(16)), record=record)


def test_empty_holdouts_are_refused() -> None:
    model, small = pruned_pair()
    for nothing in ([], [frames(0)]):
        with pytest.raises(PruningError, match=r'hold-out set: empty|no frame'):
            certify(model, small, nothing)
    with pytest.raises(PruningError, match='no frame'):
        certify_decisions(np.zeros(0, bool))


def test_outputs_that_are_nan_are_refused_and_located() -> None:
    tame, wild = Scores(), Scores(broken_at=1.5)
    inputs = [frames(4), 2 * frames(4)]
    with pytest.raises(PruningError, match='parent returns NaN on batch 1'):
        certify(wild, tame, inputs)
    with pytest.raises(PruningError, match='pruned network returns NaN on batch 1'):
        certify(tame, wild, inputs)
    with pytest.raises(PruningError, match='batch 0 has values that are NaN'):
        certify(tame, tame, [frames(4) * torch.nan])


def test_networks_that_answer_differently_each_time_are_refused() -> None:
    for model, small, name in (
        (Scores(noise=0.5), Scores(), 'parent'),
        (Scores(), Scores(noise=0.5), 'pruned network'),
    ):
        with pytest.raises(PruningError, match=f'{name} returns something else'):
            certify(model, small, batches())


def test_networks_run_in_evaluation_mode_and_get_theirs_back() -> None:
    model, small = pruned_pair()
    wanted = certify(model, small, batches())
    model.train()
    frozen = next(each for each in model.modules() if isinstance(each, nn.BatchNorm2d)).eval()
    small.train()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert certify(model, small, batches()) == wanted
    assert model.training
    assert small.training
    assert not frozen.training
    after = small.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_lengths_that_differ_are_refused() -> None:
    changed, short = np.zeros(10, bool), np.zeros(9, bool)
    for options, name in (
        ({'negative_flips': short}, 'negative_flips: 9'),
        ({'clusters': np.zeros(9)}, 'clusters'),
        ({'slices': {'night': short}}, "slice 'night': 9"),
    ):
        with pytest.raises(PruningError, match=name):
            certify_decisions(changed, **options)
    with pytest.raises(PruningError, match='batch 0: decide: 3 values for 16'):
        certify(*pruned_pair(), batches(), decide=lambda a, b: torch.zeros(3, dtype=torch.bool))


def test_what_is_not_one_bool_per_frame_is_refused() -> None:
    for bad in (np.zeros(10), np.zeros((10, 2), bool)):
        with pytest.raises(PruningError, match='one bool per frame'):
            certify_decisions(bad)


def test_slice_without_a_frame_is_refused() -> None:
    slices = {'day': np.ones(10, bool), 'night': np.zeros(10, bool)}
    with pytest.raises(PruningError, match="slice 'night' has no frame"):
        certify_decisions(np.zeros(10, bool), slices=slices)


@pytest.mark.parametrize('confidence', [0, 1, 95])
def test_confidence_outside_0_1_is_refused(confidence: float) -> None:
    with pytest.raises(PruningError, match='confidence'):
        certify_decisions(np.zeros(10, bool), confidence=confidence)
    with pytest.raises(PruningError, match='confidence'):
        certify(*pruned_pair(), batches(), confidence=confidence)
