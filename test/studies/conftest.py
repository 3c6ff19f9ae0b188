"""The folder `studies` is no part of the package: it is imported from the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('torch_pruning', reason="studies compare with Torch-Pruning: extra 'study'")

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
