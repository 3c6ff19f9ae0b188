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

"""What was done without labels, and what recovered what."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pruned_perception._tables import Table
from pruned_perception.pruning.plan import AnyPlan
from pruned_perception.pruning.records import Record
from pruned_perception.training.label_free.agreement import Likeness
from pruned_perception.training.label_free.recipe import LabelFree

PARENT = 'the parent'


@dataclass(frozen=True)
class LabelFreeStage(Record):
    """One cut, and how like its parent the network was on held-out frames after each step."""

    macs: int
    parameters: int
    cut: Likeness
    refitted: Likeness | None
    taught: Likeness | None
    kept: str
    """What was gone on with: 'cut', 'refitted' or 'taught'; the one of the highest AP50."""
    steps: int
    cpu_seconds: float
    """Of choosing, fitting and teaching."""


@dataclass(frozen=True)
class LabelFreeRecord(Record):
    """A pruning without labels: the recipe, the frames, and the stages in order."""

    recipe: LabelFree
    budget: str
    seed: int
    frames: int
    held_out: int
    dense_macs: int
    dense_parameters: int
    stages: tuple[LabelFreeStage, ...]
    taught_by: str = PARENT
    """`PARENT`, or the function whose training it was."""

    @property
    def agreement(self) -> float:
        """Agreement of what was returned with the parent, on the held-out frames."""
        last = self.stages[-1]
        return getattr(last, last.kept).agreement

    def to_text(self) -> str:
        """Return a table: what each stage left, and what recovered it."""
        header = (
            'cut:d | MACs:11,d | parameters:,d | cut: agreement:.3f | AP50:.3f | '
            'refitted: agreement:.3f | AP50:.3f | taught: agreement:.3f | AP50:.3f | '
            'steps:,d | kept'
        )
        rows = []
        for number, stage in enumerate(self.stages, 1):
            found = (stage.cut, stage.refitted, stage.taught)
            figures = [
                value
                for each in found
                for value in ((None, None) if each is None else (each.agreement, each.ap50))
            ]
            row = (number, stage.macs, stage.parameters, *figures, stage.steps, stage.kept)
            rows.append(row)
        return (
            f'{self.budget}, from {self.dense_macs:,} MACs; fitted on {self.frames} frames, judged '
            f'on {self.held_out} others by what the parent finds there; taught by '
            f'{self.taught_by}\n' + Table.under(header, rows).to_text()
        )


@dataclass(frozen=True)
class LabelFreeResult:
    """The pruned network, in evaluation mode without batch norms, and how it came about.

    The parent's imported network, cut after `plans` in order, has its architecture.
    """

    network: nn.Module
    plans: tuple[AnyPlan, ...]
    record: LabelFreeRecord
