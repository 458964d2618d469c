"""Cityscapes: its files hold 34 label ids, of which 19 classes are learned; the others are ignored.

From labels.py of github.com/mcordts/cityscapesScripts (id -> trainId).
"""

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the classes, in their order

TRAIN_IDS = tuple(LABEL_IDS.index(raw) if raw in LABEL_IDS else 255 for raw in range(34))  # the `lookup` of a source
