import pytest

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('torch_pruning', reason="surgery needs Torch-Pruning: extra 'train'")
