# %% [markdown]
# # 1 · Classification and segmentation
#
# A classifier answers with one vector for an image: how likely is each class? A semantic segmenter answers with one
# such vector for every pixel. This notebook trains one of each on the same pictures, with the same classes, and lays
# their answers side by side.
#
# The pictures are `scenes`: real handwritten digits, coloured, on photographs. Both nets are small and trained for a
# minute or less on a CPU, so their answers are good enough to look at and no better.

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from scipy import ndimage

from jaxgen.data.batches import Pipeline
from jaxgen.data.crops import BoxCrop
from jaxgen.data.scenes import Scenes
from jaxgen.evaluation import evaluate, evaluation_batches, sums
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.metrics.accumulators import results
from jaxgen.models.cnn import Cnn
from jaxgen.models.fcn import Fcn
from jaxgen.nn.backbones import SmallBackbone
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine
from jaxgen.pictures import diagram
from jaxgen.pictures.colours import palette, tint
from jaxgen.program import Program
from jaxgen.supervised.losses import Sum
from jaxgen.weights.inherit import inherit

plt.rcParams.update({"figure.dpi": 80, "figure.facecolor": "white", "font.size": 9, "axes.titlesize": 9})
plt.rcParams["image.interpolation"] = "nearest"
test = Scenes("test").open()
classes = test.classes  # background, then the digits
colours = palette(len(classes)) / 255


def coloured(image, ids):
    """Return an image, as bytes, tinted by the class of each pixel."""
    return tint(image.astype(np.float32) / 127.5 - 1, ids, len(classes)) / 2 + 0.5


def bare(axes):
    """Remove the ticks of axes that show pictures."""
    for ax in np.ravel(axes):
        ax.set(xticks=[], yticks=[])


def draw_boxes(ax, boxes, names):
    """Draw each box, in pixels, with a name above it, or below where there is no room."""
    for (x0, y0, x1, y1), name in zip(boxes, names, strict=True):
        ax.add_patch(plt.Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color="white", lw=1.2))
        y, side = (y0 - 1, "bottom") if y0 > 8 else (y1 + 1, "top")
        ax.text(x0, y, name, color="white", fontsize=8, va=side, bbox={"fc": "black", "ec": "none", "pad": 1})


# %% [markdown]
# ## What a scene knows
#
# Each scene comes with four answers to "what is there?", from vague to exact: a caption, labels, boxes, and a mask that
# holds a class for every pixel.

# %%
picks = [i for i in range(64) if len(test[i]["labels"]) == 4][:3]
fig, axes = plt.subplots(3, 3, figsize=(8, 8.4), layout="constrained")
for row, i in zip(axes, picks, strict=True):
    scene = test[i]
    row[0].imshow(scene["image"])
    draw_boxes(row[0], scene["boxes"], [classes[k] for k in scene["labels"]])
    row[1].imshow(scene["mask"], cmap="gray", vmin=0, vmax=len(classes) - 1)
    row[2].imshow(coloured(scene["image"], scene["mask"]))
    caption = str(scene["caption"]).replace(", ", ",\n")
    row[0].set_title(caption, fontsize=8, loc="left")
    row[1].set_title("mask: an id for each pixel")
    row[2].set_title("the same, in colours")
bare(axes)
plt.show()

# %% [markdown]
# ## Two nets
#
# The classifier reads a crop of 24×24 pixels, which `BoxCrop` cuts around a digit or around none, and ends in dense
# layers: one vector. The segmenter is an FCN-8s: it has the classifier's three stages and two more, scores the maps of
# three strides, adds them and enlarges the sum to the image's size: one vector for each pixel. Both have the same
# eleven classes. The diagram is drawn from the nets themselves: every block with the shape of its output and its
# parameters.

# %%
SIDE = 24  # pixels of a crop
classifier = Cnn(classes=len(classes), widths=(24, 48, 64), depths=(1, 1, 1), hidden=(96,), dropout=0.2)
segmenter = Fcn(
    classes=len(classes),
    stride=8,
    backbone=SmallBackbone(widths=(*classifier.widths, 96, 96), depths=(1,) * 5),
    hidden=(96,),
    window=3,
    dropout=0.1,
    skip_scale=(1.0, 1.0),
)
diagram.draw(
    {
        "classifier: a crop in, one vector out": diagram.blocks(classifier, jnp.zeros((1, SIDE, SIDE, 3)), depth=2),
        "segmenter: a scene in, a vector for each pixel out": diagram.blocks(
            segmenter, jnp.zeros((1, 64, 64, 3)), depth=2
        ),
    }
)

# %% [markdown]
# An experiment names the net, how it learns, and its data. A program is that experiment compiled: `init` makes the
# first state, `step` is a pure function from a state and a batch to the next state and what there is to report. The
# loop is the same for both nets: only their objectives differ. The segmenter starts with the three stages that the
# classifier has learned: `inherit` copies the arrays that have the same path and shape in both.

# %%


def learner(net, peak):
    """A net that learns by Adam, at a rate that rises to its peak and falls to zero."""
    return Learner(module=net, optimizer=Optimizer(learning_rate=Cosine(peak=peak), weight_decay=0.02, clip=1.0))


def learn(program, state):
    """Step through the training batches; return the last state, and what each step reported."""
    reports = []
    for batch in program.batches():
        state, scalars = program.step(state, batch)
        reports.append(scalars)
    return state, jax.tree.map(lambda *values: np.array(values), *jax.device_get(reports))


crops = Experiment(
    objective=Classification(net=learner(classifier, 4e-3)),
    train=Pipeline(Scenes("train"), (BoxCrop(SIDE),)),
    test=Pipeline(Scenes("test"), (BoxCrop(SIDE),)),
    steps=300,
    batch_size=64,
)
masks = Experiment(
    objective=Segmentation(net=learner(segmenter, 4e-3), loss=Sum()),  # cross-entropy and Dice
    train=Pipeline(Scenes("train")),
    test=Pipeline(Scenes("test")),
    steps=310,
    batch_size=16,
)
classify, segment = Program.of(crops), Program.of(masks)
classifying, of_crops = learn(classify, classify.init())
start = segment.init()
start.nets["net"] = inherit(start.nets["net"], classifying.nets["net"])
segmenting, of_masks = learn(segment, start)

fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for ax, reports, accuracy, title in (
    (axes[0], of_crops, "accuracy", "classifier"),
    (axes[1], of_masks, "pixel_accuracy", "segmenter"),
):
    ax.plot(reports["loss"], color="C0", lw=1, label="loss")
    ax.plot(reports[accuracy], color="C1", lw=1, label=f"{accuracy.replace('_', ' ')} of the batch")
    ax.set(xlabel="step", ylabel="loss, and share right", title=title, ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend()
plt.show()

# %% [markdown]
# Pixel accuracy is high after a few steps and says little: most pixels are background, and a net that calls all of them
# so is right about most. Hence the measures further down, which count each class by itself.
#
# ## The classifier: one vector for each crop
#
# The same scene, crop by crop, through the classifier. Each bar chart is its whole answer: eleven probabilities, of
# which the largest five are drawn.

# %%
accuracy = evaluate(classify, classifying)["accuracy"]
scene = test[picks[0]]
around = BoxCrop(SIDE, jitter=0.0, free=200)  # the digits themselves: no crop has that much free room
cut = [
    around(np.random.default_rng(0), {"image": scene["image"], "boxes": box[None], "labels": label[None]})
    for box, label in zip(scene["boxes"], scene["labels"], strict=True)
]
vectors = np.asarray(classify.predict(classifying, np.stack([one["image"] for one in cut])).probability)

fig, axes = plt.subplots(2, len(cut), figsize=(9, 4.2), height_ratios=(1, 1.2), layout="constrained")
for (top, bottom), one, vector in zip(axes.T, cut, vectors, strict=True):
    top.imshow(one["image"])
    top.set_title(f"truth: {classes[one['label']]}")
    best = np.argsort(vector)[::-1][:5]
    bottom.barh(np.arange(5), vector[best], color=colours[best] * 0.8 + 0.1)
    for place, k in enumerate(best):
        bottom.text(min(vector[k], 0.75) + 0.02, place, f"{vector[k]:.3f}", va="center", fontsize=8)
    bottom.set(yticks=range(5), yticklabels=[classes[k] for k in best], xlim=(0, 1), xlabel="probability")
    bottom.invert_yaxis()
bare(axes[0])
plt.show()
display(Markdown(f"Of {len(test)} test crops, one from each scene, the classifier names {accuracy:.1%} right."))

# %% [markdown]
# ## The segmenter: one vector for each pixel
#
# The whole scene at once. The boxes carry what the classifier says of their crops; the masks are the truth and what the
# segmenter finds; the last column marks in red where the two differ.

# %%
fig, axes = plt.subplots(3, 4, figsize=(9.5, 7.2), layout="constrained")
for row, i in zip(axes, picks, strict=True):
    scene = test[i]
    ids = np.asarray(segment.predict(segmenting, scene["image"][None]).ids)[0]
    cut = [
        around(np.random.default_rng(0), {"image": scene["image"], "boxes": box[None], "labels": label[None]})["image"]
        for box, label in zip(scene["boxes"], scene["labels"], strict=True)
    ]
    named = np.asarray(classify.predict(classifying, np.stack(cut)).probability)
    row[0].imshow(scene["image"])
    draw_boxes(row[0], scene["boxes"], [f"{classes[p.argmax()]} {p.max():.2f}" for p in named])
    row[1].imshow(coloured(scene["image"], scene["mask"]))
    row[2].imshow(coloured(scene["image"], ids))
    wrong = ids != scene["mask"]
    row[3].imshow(np.where(wrong[..., None], (0.9, 0.1, 0.1), scene["image"] / 255))
    row[3].set_xlabel(f"{1 - wrong.mean():.1%} of the pixels right")
titles = ("boxes, named by the classifier", "true mask", "predicted mask", "where they differ")
for ax, title in zip(axes[0], titles, strict=True):
    ax.set_title(title)
bare(axes)
handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours[1:]]
fig.legend(handles, classes[1:], loc="outside lower center", ncols=10, title="class")
plt.show()

# %% [markdown]
# ## 1×N against H×W×N
#
# The two answers as arrays. The classifier's is N numbers that add to 1. The segmenter's is a stack of N maps which add
# to 1 at every pixel; each map shows where its class is.

# %%
scene = test[picks[0]]
logits = segment.predict(segmenting, scene["image"][None]).logits
volume = np.asarray(jax.nn.softmax(logits))[0]  # h w n
fig = plt.figure(figsize=(10, 5), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=(1, 2.4))
bars = left.subplots()
bars.bar(range(len(classes)), vectors[0], color=colours * 0.8 + 0.1)
bars.set_xticks(range(len(classes)), ["bg", *classes[1:]])
bars.set(xlabel="class", ylabel="probability", ylim=(0, 1), title=f"classifier, first crop: 1×{vectors.shape[1]}")
axes = right.subplots(3, 4)
axes[0, 0].imshow(scene["image"])
axes[0, 0].set_title("the scene")
for ax, name, channel in zip(axes.flat[1:], classes, np.moveaxis(volume, -1, 0), strict=True):
    drawn = ax.imshow(channel, cmap="magma", vmin=0, vmax=1)
    ax.set_title(f"p({name})")
bare(axes)
right.colorbar(drawn, ax=axes, label="probability", shrink=0.7)
right.suptitle("segmenter: " + "×".join(map(str, volume.shape)), fontsize=9)
plt.show()
display(
    Markdown(
        f"{vectors[0].size} numbers against {volume.size:,}. They add to {vectors[0].sum():.4f}, and at every pixel to "
        f"between {volume.sum(-1).min():.4f} and {volume.sum(-1).max():.4f}."
    )
)

# %% [markdown]
# A pixel's vector is read like a classifier's. Three pixels: the one deepest in a stroke, the one farthest from all
# digits, and the one where the net is least sure.

# %%
spread = -(volume * np.log(np.maximum(volume, 1e-12))).sum(-1)  # entropy in nats
inside = ndimage.distance_transform_edt(scene["mask"] > 0)
outside = np.pad(ndimage.distance_transform_edt(scene["mask"] == 0)[4:-4, 4:-4], 4)  # away from the picture's edge
spots = {
    "in a stroke": np.unravel_index(inside.argmax(), inside.shape),
    "in the background": np.unravel_index(outside.argmax(), outside.shape),
    "least sure": np.unravel_index(spread.argmax(), spread.shape),
}
fig, axes = plt.subplots(1, 4, figsize=(11, 2.7), layout="constrained")
axes[0].imshow(scene["image"])
for number, (ax, (what, (y, x))) in enumerate(zip(axes[1:], spots.items(), strict=True), start=1):
    axes[0].plot(x, y, "o", ms=9, mfc="none", mec="black", mew=3)
    axes[0].plot(x, y, "o", ms=9, mfc="none", mec="white", mew=1.5)
    axes[0].text(
        min(x + 2, 58), max(y - 2, 5), str(number), color="white", bbox={"fc": "black", "ec": "none", "pad": 1}
    )
    ax.bar(range(len(classes)), volume[y, x], color=colours * 0.8 + 0.1)
    ax.set_xticks(range(len(classes)), ["bg", *classes[1:]])
    ax.set(title=f"{number}: {what}", ylim=(0, 1), xlabel="class", ylabel="probability")
bare(axes[:1])
plt.show()

# %% [markdown]
# ## How good? A number for each class
#
# The intersection over union (IoU) of a class is the number of pixels that truth and prediction both give to it, over
# those that either does. The mean over classes is mIoU. Unlike the share of right pixels, it is not won by background.

# %%
SCENES = 256
batches = itertools.islice(evaluation_batches(segment, test), SCENES // masks.test_batch_size)
found = results(sums(segment, segmenting, batches), classes)
iou = [found["per_class"][name]["iou"] or 0.0 for name in classes]
fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
ax.bar(range(len(classes)), iou, color=["0.35", *colours[1:] * 0.8 + 0.1])
ax.axhline(found["miou"], color="C3", ls="--", label=f"mean: {found['miou']:.3f}")
ax.set_xticks(range(len(classes)), classes)
ax.set(xlabel="class", ylabel="IoU", ylim=(0, 1), title=f"IoU by class, over {SCENES} test scenes")
ax.legend()
plt.show()
display(
    Markdown(
        f"{found['aacc']:.1%} of the pixels are right, but mIoU is {found['miou']:.3f}: background alone reaches "
        f"{iou[0]:.3f}, the digits {min(iou[1:]):.3f} to {max(iou[1:]):.3f}."
    )
)

# %% [markdown]
# ## Semantic, not instance
#
# A semantic mask says what each pixel is, not which one. Two digits of the same class have the same id. Connected
# components tell them apart as long as they do not touch, but know nothing of digits: a mask that runs from one digit
# into the next is one component. Boxes, one for each, keep them apart; so does instance segmentation, which gives each
# thing a mask of its own.

# %%
twins = next(i for i in range(len(test)) if len(set(test[i]["labels"].tolist())) < len(test[i]["labels"]))
scene = test[twins]
twice = next(k for k in scene["labels"] if (scene["labels"] == k).sum() > 1)
ids = np.asarray(segment.predict(segmenting, scene["image"][None]).ids)[0]
parts = {name: ndimage.label(m == twice, np.ones((3, 3))) for name, m in (("true", scene["mask"]), ("predicted", ids))}
fig, axes = plt.subplots(1, 5, figsize=(11.5, 2.9), layout="constrained")
axes[0].imshow(scene["image"])
draw_boxes(axes[0], scene["boxes"], [classes[k] for k in scene["labels"]])
axes[0].set_title("boxes: one for each digit")
axes[1].imshow(coloured(scene["image"], scene["mask"]))
axes[1].set_title("true mask: a colour a class")
axes[2].imshow(coloured(scene["image"], ids))
axes[2].set_title("predicted mask")
for ax, (name, (part, count)) in zip(axes[3:], parts.items(), strict=True):
    ax.imshow(np.ma.masked_equal(part, 0), cmap="tab10", vmin=1, vmax=10)
    ax.set_facecolor("0.9")
    ax.set_title(f"{name} components of class {classes[twice]}: {count}")
bare(axes)
plt.show()
boxes = int((scene["labels"] == twice).sum())
display(
    Markdown(
        f"Class {classes[twice]} has {boxes} boxes here and one id in the mask. Connected components: "
        f"{parts['true'][1]} in the truth, {parts['predicted'][1]} in the prediction."
    )
)

# %% [markdown]
# ## Where the net is unsure
#
# The entropy of a pixel's vector is 0 where the net is certain and ln N where it knows nothing. It is low in the
# background and high along the borders of the digits: there a shift of one pixel changes the answer, and this net's
# finest map has a cell for every 8 pixels. Inside a stroke it is high where the net doubts which digit it is.

# %%
batch = np.stack([test[i]["image"] for i in range(64)])
mask = np.stack([test[i]["mask"] for i in range(64)])
p = np.asarray(jax.nn.softmax(segment.predict(segmenting, batch).logits))
entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(-1)
signed = np.stack(
    [
        np.where(m > 0, ndimage.distance_transform_edt(m > 0) - 0.5, 0.5 - ndimage.distance_transform_edt(m == 0))
        for m in mask
    ]
)  # pixels from the border, above 0 inside a digit
edges = np.arange(-12, 5)
middle = (edges[:-1] + edges[1:]) / 2
bins = np.digitize(signed, edges)
mean = [entropy[bins == k].mean() if (bins == k).any() else np.nan for k in range(1, len(edges))]
error = [(p.argmax(-1) != mask)[bins == k].mean() if (bins == k).any() else np.nan for k in range(1, len(edges))]

fig, axes = plt.subplots(1, 4, figsize=(11.5, 2.8), width_ratios=(1, 1, 1.15, 1.8), layout="constrained")
axes[0].imshow(batch[picks[0]])
axes[0].set_title("image")
axes[1].imshow(coloured(batch[picks[0]], p[picks[0]].argmax(-1)))
axes[1].set_title("predicted mask")
drawn = axes[2].imshow(entropy[picks[0]], cmap="magma", vmin=0)
axes[2].set_title("entropy")
fig.colorbar(drawn, ax=axes[2], label="nats", shrink=0.8)
axes[3].plot(middle, mean, "o-", ms=3, label="mean entropy (nats)")
axes[3].plot(middle, error, "o-", ms=3, label="share of wrong pixels")
axes[3].axvline(0, color="0.5", lw=1)
axes[3].set(xlabel="pixels from the true border, digits to the right", ylabel="over 64 scenes", ylim=(0, None))
axes[3].grid(alpha=0.3)
axes[3].legend()
bare(axes[:3])
plt.show()
at_border, deep, far = (entropy[where].mean() for where in (np.abs(signed) < 1, signed > 2.5, signed < -6))
display(
    Markdown(
        f"Mean entropy, of at most ln {len(classes)} = {np.log(len(classes)):.2f} nats: {at_border:.2f} in the pixels "
        f"on both sides of the border, {deep:.2f} more than two pixels inside, {far:.3f} more than six pixels outside."
    )
)

# %% [markdown]
# To train longer: `uv run train.py configs/segmentation/scenes_fcn8s.py`, or `scenes_unet.py`; then
# `uv run jaxgen predict` writes masks and overlays of any pictures. How a classifier becomes a net for masks is the
# second notebook.
