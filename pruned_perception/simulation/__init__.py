"""One description of a scene, rendered by MuJoCo; robot kinematics; data sets."""
