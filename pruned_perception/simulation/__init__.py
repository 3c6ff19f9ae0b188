"""One description of a scene, rendered by MuJoCo; robot kinematics; data sets.

`scene` is plain data and knows no simulator; `catalogue`, `warehouse` and `randomise` make it up;
`mujoco_model` and `renderer` turn it into pictures, `ground_truth` into boxes, `dataset` into data
sets on disk; `robot` drives through it. MuJoCo is imported only when something is rendered.
"""

from pruned_perception.simulation.scene import LABELS, labels

__all__ = ['LABELS', 'labels']
