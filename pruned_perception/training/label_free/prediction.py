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

"""Whether pruning without labels will pay, found out before the hours that it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pruned_perception.bundle import Bundle
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.records import Record
from pruned_perception.training.compute import Compute
from pruned_perception.training.label_free.agreement import Likeness, Picture
from pruned_perception.training.label_free.prune import prune_label_free
from pruned_perception.training.label_free.recipe import LabelFree
from pruned_perception.training.loop import OnProgress

MENDABLE = 0.2
"""AP50 against the parent's detections after one cut and refit, from which on minutes of teaching
were seen to bring a network back; see docs/label_free.md for the networks that say so."""


@dataclass(frozen=True)
class Prediction(Record):
    """A budget, and what one cut and refit leave there."""

    macs: int
    dense_macs: int
    refitted: Likeness

    @property
    def pays(self) -> bool:
        """Say whether teaching is likely to bring it back in minutes, by what others took."""
        return self.refitted.ap50 >= MENDABLE

    def to_text(self) -> str:
        """Return a line."""
        verdict = (
            'teaching is likely to bring it back'
            if self.pays
            else 'more is lost than minutes of teaching bring back: cut less, or take INT8 or a '
            'lower resolution'
        )
        return (
            f'{self.macs:,} of {self.dense_macs:,} MACs: after cut and refit AP50 '
            f'{self.refitted.ap50:.3f} against what the parent finds, agreement '
            f'{self.refitted.agreement:.3f} at its threshold; {verdict}'
        )


def predict_label_free(
    bundle: Bundle,
    frames: Sequence[Picture],
    budget: Budget,
    *,
    recipe: LabelFree,
    held_out: Sequence[Picture],
    seed: int = 0,
    report: OnProgress | None = None,
    compute: Compute | None = None,
) -> Prediction:
    """Cut once and refit, teach nothing: about a CPU minute for a network of a GMAC.

    Arguments and errors are those of `prune_label_free`.
    """
    once = dataclasses.replace(recipe, cuts=1, refit=True)
    record = prune_label_free(
        bundle, frames, budget, recipe=once, training=None, held_out=held_out, seed=seed,
        report=report, compute=compute,
    ).record  # fmt: skip
    (stage,) = record.stages
    assert stage.refitted is not None
    return Prediction(stage.macs, record.dense_macs, stage.refitted)
