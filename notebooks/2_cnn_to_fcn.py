# %% [markdown]
# # 2 · From a classifier to a fully convolutional net
#
# A classifier maps an image to one vector of class scores. Its last layers are dense, and so it takes images of one
# size. Seen as convolutions, the same layers with the same numbers slide over an image of any size and give a map of
# scores. Enlarged to the image's size by learned deconvolutions, and joined with finer maps, this is the FCN of
# Shelhamer, Long and Darrell ([arXiv:1605.06211](https://arxiv.org/abs/1605.06211)).
#
# Here all of it is done with a small net on `scenes`: real handwritten digits, coloured, on photographs. The steps are
# short, so that the notebook runs in a few minutes on a CPU: the masks are those of nets at the start of their
# training.

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

from jaxgen import tree
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
from jaxgen.nn.upsample import Deconvolution, bilinear
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine
from jaxgen.pictures import diagram
from jaxgen.pictures.colours import palette, tint
from jaxgen.plan.flops import flops
from jaxgen.program import Program
from jaxgen.supervised.losses import Sum
from jaxgen.weights.convolutionalize import convolutionalize
from jaxgen.weights.inherit import inherit

plt.rcParams.update({"figure.dpi": 80, "figure.facecolor": "white", "font.size": 9, "axes.titlesize": 9})
plt.rcParams["image.interpolation"] = "nearest"
test = Scenes("test").open()
classes = test.classes  # background, then the digits


def learner(net, peak):
    """A net that learns by Adam, at a rate that rises to its peak and falls to zero."""
    return Learner(module=net, optimizer=Optimizer(learning_rate=Cosine(peak=peak), weight_decay=0.02, clip=1.0))


def learn(program, state):
    """Step through the training batches; return the last state and the loss of each step."""
    losses = []
    for batch in program.batches():
        state, scalars = program.step(state, batch)
        losses.append(scalars["loss"])
    return state, np.array(jax.device_get(losses))


# %% [markdown]
# ## A classifier of crops
#
# `BoxCrop` turns a scene into a classification problem: a crop of 24×24 pixels around one of its digits, or around
# none, which is class *background*. The net has three stages, each of which halves the side: 24 pixels become 3 cells.
# Two dense layers follow.

# %%
SIDE = 24  # pixels of a crop
classifier = Cnn(classes=len(classes), widths=(24, 48, 64), depths=(1, 1, 1), hidden=(96,), dropout=0.2)
crops = Experiment(
    objective=Classification(net=learner(classifier, 4e-3)),
    train=Pipeline(Scenes("train"), (BoxCrop(SIDE),)),
    test=Pipeline(Scenes("test"), (BoxCrop(SIDE),)),
    steps=300,
    batch_size=64,
)
program = Program.of(crops)
state, losses = learn(program, program.init())
accuracy = evaluate(program, state)["accuracy"]
net = state.nets["net"]

batch = next(program.host_batches(test, 0, 1))
probability = program.predict(state, batch["image"]).probability
fig, axes = plt.subplots(2, 8, figsize=(10, 3.1), layout="constrained")
for ax, image, label, p in zip(axes.flat, batch["image"], batch["label"], probability, strict=False):
    ax.imshow(image)
    ax.set_title(f"{classes[p.argmax()]}  {p.max():.2f}", color="C2" if p.argmax() == label else "C3")
    ax.set_axis_off()
fig.suptitle("Test crops: the likeliest class and its probability, red where it is wrong")
plt.show()
display(Markdown(f"After {crops.steps} steps, {accuracy:.1%} of the crops of the {len(test)} test scenes are right."))

# %% [markdown]
# ## The dense head is a convolution
#
# The first dense layer takes the flattened map of 3×3×64 numbers and gives 96. A convolution with a 3×3 kernel over 64
# channels takes exactly these numbers, wherever it is laid. So the matrix, with its rows arranged as 3×3×64, *is* the
# kernel; the layer after it becomes a 1×1 convolution. `convolutionalize` does that. Nothing is trained anew.

# %%
window = (SIDE // 2 ** len(classifier.widths),) * 2  # cells of the last map that the first dense layer takes
sliding, kernels = convolutionalize(classifier, net.params, window)

before, after = dict(tree.leaves(net.params["head"])), dict(tree.leaves(kernels["head"]))
rows = ["| layer | dense | convolution | parameters | the same numbers |", "|---|---|---|---|---|"]
for path, dense in before.items():
    same = bool(jnp.array_equal(dense.ravel(), after[path].ravel()))
    shapes = ("×".join(map(str, array.shape)) for array in (dense, after[path]))
    rows.append(f"| `head/{path}` | {' | '.join(shapes)} | {dense.size:,} | {'yes' if same else 'no'} |")
total = tree.count(net.params), tree.count(kernels)
rows.append(f"| the whole net | | | {total[0]:,} and {total[1]:,} | |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# The diagram is drawn from the nets themselves. Above is the classifier on a crop; below the same weights on a picture
# of 128×192 pixels, where the head gives a vector for each window of the last map.

# %%
HEIGHT, WIDTH = 128, 192
crop, canvas = jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros((1, HEIGHT, WIDTH, 3))
diagram.draw(
    {
        f"classifier on a crop of {SIDE}×{SIDE}": diagram.blocks(classifier, crop, depth=2),
        f"the same weights as convolutions, on {HEIGHT}×{WIDTH}": diagram.blocks(sliding, canvas, depth=2),
    }
)

# %% [markdown]
# ## One vector becomes a map of vectors
#
# Six test scenes laid side by side make a picture that the classifier has no answer to. The convolutional net reads
# it in one pass. On a picture of the native size it gives a map of 1×1, with the classifier's own numbers.

# %%
slide = lambda image: sliding.apply({"params": kernels, **net.stats}, image, train=False)  # noqa: E731
scores = program.map(slide)
scenes = [test[i]["image"] for i in range(6)]
picture = np.concatenate([np.concatenate(scenes[i : i + 3], axis=1) for i in (0, 3)])
as_float = lambda image: np.asarray(image, np.float32)[None] / 127.5 - 1  # noqa: E731

one = scores(as_float(batch["image"][0]))
vector = program.predict(state, batch["image"][:1]).probability[0]
difference = float(jnp.abs(jax.nn.softmax(one[0, 0, 0]) - vector).max())
heat = jax.nn.softmax(scores(as_float(picture)))[0]  # h w n
windows = heat.shape[0] * heat.shape[1]
again = flops(slide, as_float(picture))
several = flops(
    lambda x: classifier.apply({"params": net.params, **net.stats}, x, train=False), jnp.zeros((windows, SIDE, SIDE, 3))
)

colours = palette(len(classes)) / 255
likeliest, cells = np.asarray(heat.argmax(-1)), np.asarray(heat)
fig = plt.figure(figsize=(10, 5.6), layout="constrained")
above, below = fig.subfigures(2, 1, height_ratios=(1.35, 1))
left, right = above.subplots(1, 2)
left.imshow(picture, extent=(0, WIDTH, HEIGHT, 0))
left.set(xlabel="column (pixels)", ylabel="row (pixels)", title="the picture")
right.imshow(np.where(likeliest[..., None] > 0, colours[likeliest], 0.92))
for i, j in np.argwhere((likeliest > 0) & (cells.max(-1) > 0.5)):
    right.text(j, i, classes[likeliest[i, j]], ha="center", va="center", fontsize=7)
right.set(xlabel="column (cells)", ylabel="row (cells)", title="likeliest class of each cell, named where p > 0.5")
axes = below.subplots(2, 6)
for ax, name, channel in zip(axes.flat, classes, np.moveaxis(cells, -1, 0), strict=False):
    drawn = ax.imshow(channel, cmap="magma", vmin=0, vmax=1)
    ax.set_title(f"p({name})")
axes.flat[-1].set_visible(False)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
below.colorbar(drawn, ax=axes, label="probability", shrink=0.7)
plt.show()
display(
    Markdown(
        f"The picture is {HEIGHT}×{WIDTH} pixels, each map {heat.shape[0]}×{heat.shape[1]} cells, one for every "
        f"8 pixels. On a crop, map and classifier differ by {difference:.0e} at most. One pass costs "
        f"{again / 1e9:.2f} GFLOP, the classifier on each of the {windows} windows "
        f"{several / 1e9:.2f} GFLOP, {several / again:.1f} times as much: windows that overlap share their features."
    )
)

# %% [markdown]
# A digit in the middle of a cell's window lights up in the map of its class, and leaves a hole in that of the
# background. Cells beside it see a part of it, which training never showed, and guess. And the maps are coarse: a cell
# speaks for a window of 24 pixels, and there is one for every 8 pixels. A mask needs a class for each pixel.
#
# ## Upsampling: bilinear at first, then learned
#
# A transposed convolution of stride f adds a kernel of 2f×2f, weighted by each cell, into a map f times as large.
# Filled with a tent it interpolates bilinearly; in the FCN that is only where it starts, and training may change it.

# %%
factors = (2, 8, 32)
fig, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained")
for ax, f in zip(axes[0], factors, strict=True):
    kernel = bilinear(jax.random.key(0), (2 * f, 2 * f, 1, 1))[:, :, 0, 0]
    drawn = ax.imshow(kernel, cmap="viridis", vmin=0)
    ax.set(title=f"bilinear kernel of a deconvolution by {f}", xlabel="column", ylabel="row")
fig.colorbar(drawn, ax=axes[0], label="weight")

small = np.asarray(1 - heat[:8, :8, :1])[None]  # of any digit
up = Deconvolution(8)
smooth = np.asarray(up.apply(up.init(jax.random.key(0), small), small))[0, 4:-4, 4:-4, 0]
panels = {
    "the cells": small[0, :, :, 0],
    "each repeated 8×8": small[0, :, :, 0].repeat(8, 0).repeat(8, 1),
    "deconvolution by 8, bilinear": smooth,
}
for ax, (title, values) in zip(axes[1], panels.items(), strict=True):
    drawn = ax.imshow(values, cmap="magma", vmin=0, vmax=1)
    ax.set(title=title, xlabel="column", ylabel="row")
fig.colorbar(drawn, ax=axes[1], label="p(any digit)")
plt.show()

# %% [markdown]
# ## FCN-32s, 16s, 8s
#
# An FCN for masks has two more stages: its last map has a cell for every 32 pixels. FCN-32s enlarges the scores of that
# map by 32. FCN-16s enlarges them by 2, adds the scores of the fourth map (stride 16), and enlarges the sum by 16;
# FCN-8s does so once more with the third map. As in the paper, each net starts from the weights of the one before, and
# FCN-32s from the classifier. `inherit` copies every array that has the same path and shape in both nets; the new
# layers that score begin at zero, the new deconvolutions bilinear.

# %%


def fcn(stride):
    backbone = SmallBackbone(widths=(*classifier.widths, 96, 96), depths=(1,) * 5)
    return Fcn(
        classes=len(classes),
        stride=stride,
        backbone=backbone,
        hidden=(96,),
        window=3,
        dropout=0.1,
        skip_scale=(1.0, 1.0),
    )


def masks(stride, steps):
    return Experiment(
        objective=Segmentation(net=learner(fcn(stride), 4e-3), loss=Sum()),  # cross-entropy and Dice
        train=Pipeline(Scenes("train")),
        test=Pipeline(Scenes("test")),
        steps=steps,
        batch_size=16,
    )


LENGTHS = {32: 40, 16: 110, 8: 150}  # stride: steps
SCENES = 256  # test scenes that count below
programs, states, curves, scored = {}, {}, {}, {}
source = net
for stride, steps in LENGTHS.items():
    programs[stride] = Program.of(masks(stride, steps))
    first = programs[stride].init()
    first.nets["net"] = inherit(first.nets["net"], source)
    states[stride], curves[stride] = learn(programs[stride], first)
    source = states[stride].nets["net"]
    batches = itertools.islice(evaluation_batches(programs[stride], test), SCENES // 64)
    scored[stride] = results(sums(programs[stride], states[stride], batches), classes)

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
began = 0
for stride, curve in curves.items():
    ax.plot(began + np.arange(len(curve)), curve, label=f"FCN-{stride}s")
    began += len(curve)
ax.set(
    xlabel="step, over the three trainings",
    ylabel="cross-entropy + Dice",
    title="Each net goes on where the last stopped",
)
ax.grid(alpha=0.3)
ax.legend()
plt.show()
lines = ["| net | steps of its own | parameters | mIoU | pixels right |", "|---|---|---|---|---|"]
for stride, found in scored.items():
    size = tree.count(states[stride].nets["net"].params)
    lines.append(f"| FCN-{stride}s | {LENGTHS[stride]} | {size:,} | {found['miou']:.3f} | {found['aacc']:.3f} |")
display(Markdown(f"Over {SCENES} test scenes:\n\n" + "\n".join(lines)))

# %% [markdown]
# The same scenes through the three nets: above the likeliest class of each pixel, below the probability that it is of
# any digit at all. A scene of 64×64 pixels has 2×2 cells in the last map. From these alone FCN-32s has to say where
# everything is; each skip adds a map with four times as many.

# %%
shown = [0, 1, 3]
images = np.stack([test[i]["image"] for i in shown])
floats = images.astype(np.float32) / 127.5 - 1
truth = np.stack([test[i]["mask"] for i in shown])
logits = {stride: programs[stride].predict(states[stride], images).logits for stride in LENGTHS}
columns = {
    "image": (floats, None),
    **{
        f"FCN-{stride}s": (tint(floats, np.asarray(x.argmax(-1)), len(classes)), 1 - jax.nn.softmax(x)[..., 0])
        for stride, x in logits.items()
    },
    "truth": (tint(floats, truth, len(classes)), truth > 0),
}
fig, axes = plt.subplots(2 * len(shown), len(columns), figsize=(8.5, 10.4), layout="constrained")
for j, (title, (pictures, anything)) in enumerate(columns.items()):
    for i in range(len(shown)):
        axes[2 * i, j].imshow(pictures[i] / 2 + 0.5)
        if anything is None:
            axes[2 * i + 1, j].set_visible(False)
        else:
            drawn = axes[2 * i + 1, j].imshow(anything[i], cmap="magma", vmin=0, vmax=1)
    axes[0, j].set_title(title)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
fig.colorbar(drawn, ax=axes, label="p(any digit), in the lower rows", shrink=0.3, location="right")
handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours[1:]]
fig.legend(handles, classes[1:], loc="outside lower center", ncols=10, title="class, in the upper rows")
plt.show()

# %% [markdown]
# ## What the deconvolution learned
#
# The last deconvolution of FCN-8s began as a tent from each class to itself, and zero from each class to every other.
# On the right, how far training has moved each of these kernels; the one in the third panel moved most of those between
# two classes.

# %%
kernel = np.asarray(states[8].nets["net"].params["upsample"]["kernel"])  # rows, columns, from, to
start = np.asarray(bilinear(jax.random.key(0), kernel.shape))
moved = np.sqrt(((kernel - start) ** 2).mean((0, 1)))
same = int(moved.diagonal()[1:].argmax()) + 1
source, target = np.unravel_index((moved * (1 - np.eye(len(classes)))).argmax(), moved.shape)
name = lambda k: classes[k] if k == 0 else f"digit {classes[k]}"  # noqa: E731
fig, axes = plt.subplots(1, 4, figsize=(11.5, 2.9), layout="constrained")
for ax, values, title in (
    (axes[0], start[:, :, same, same], f"{name(same)} to itself, at first"),
    (axes[1], kernel[:, :, same, same], "the same, learned"),
    (axes[2], kernel[:, :, source, target], f"{name(source)} to {name(target)}, learned"),
):
    edge = np.abs(values).max()
    drawn = ax.imshow(values, cmap="RdBu_r", vmin=-edge, vmax=edge)
    ax.set(title=title, xlabel="column", ylabel="row")
    fig.colorbar(drawn, ax=ax, shrink=0.8)
drawn = axes[3].imshow(moved, cmap="viridis")
axes[3].set_xticks(range(len(classes)), ["bg", *classes[1:]])
axes[3].set_yticks(range(len(classes)), ["bg", *classes[1:]])
axes[3].set(title="change of each kernel", xlabel="to class", ylabel="from class")
fig.colorbar(drawn, ax=axes[3], label="root mean square", shrink=0.8)
plt.show()
share = np.linalg.norm(kernel - start) / np.linalg.norm(start)
display(Markdown(f"The whole kernel moved by {share:.1%} of its norm."))

# %% [markdown]
# ## Any size
#
# No layer depends on the number of rows and columns any more. The same weights read pictures of three odd sizes; an FCN
# pads each to a multiple of 32 and cuts the scores back to the picture.

# %%
sizes = ((53, 91), (117, 75), (127, 189))
fig, axes = plt.subplots(2, 3, figsize=(8.5, 5.2), layout="constrained")
for (top, bottom), (h, w) in zip(axes.T, sizes, strict=True):
    part = picture[:h, :w]
    ids = np.asarray(programs[8].predict(states[8], part[None]).ids)[0]
    top.imshow(part)
    top.set_title(f"image {h}×{w}")
    bottom.imshow(tint(part.astype(np.float32) / 127.5 - 1, ids, len(classes)) / 2 + 0.5)
    bottom.set_title(f"mask {ids.shape[0]}×{ids.shape[1]}")
    for ax in (top, bottom):
        ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## The receptive field, measured
#
# Which pixels does one pixel of the mask depend on? The gradient of its largest logit with respect to the image says
# so. Here it is averaged, as an absolute value, over a few pictures. What the gradient reaches at all is the receptive
# field; most of its weight lies in a much smaller part, the *effective* receptive field (Luo et al.,
# [arXiv:1701.04128](https://arxiv.org/abs/1701.04128)).

# %%
FIELD = 256  # pixels along each side of the pictures: more than the widest field
centre = FIELD // 2
tiled = np.tile(picture, (2, 2, 1))[:FIELD, :FIELD]
pictures = np.stack([np.roll(tiled, (down, right), (0, 1)) for down, right in ((0, 0), (20, 37), (41, 15), (63, 50))])


def field(stride):
    """Return the mean absolute gradient f32[h w] of the middle pixel's largest logit."""
    objective, state = programs[stride].objective, states[stride]
    largest = lambda x: objective.forward(state, x)[:, centre, centre].max(-1).sum()  # noqa: E731
    gradient = programs[stride].map(jax.grad(largest))(pictures.astype(np.float32) / 127.5 - 1)
    return np.abs(gradient).mean((0, 3))


def side_of(values, share):
    """Return the side of the smallest square around the middle that holds this share of the sum."""
    for half in range(1, centre + 1):
        square = values[centre - half : centre + half, centre - half : centre + half]
        if square.sum() >= share * values.sum():
            return 2 * half
    return FIELD


fields = {stride: field(stride) for stride in LENGTHS}
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, (stride, values) in zip(axes, fields.items(), strict=True):
    blocks = values.reshape(FIELD // 4, 4, FIELD // 4, 4).mean((1, 3))
    logs = np.log10(np.maximum(blocks / blocks.max(), 1e-6))
    drawn = ax.imshow(logs, cmap="magma", vmin=-4, vmax=0, extent=(0, FIELD, FIELD, 0))
    half = side_of(values, 0.95) / 2
    ax.add_patch(plt.Rectangle((centre - half, centre - half), 2 * half, 2 * half, fill=False, color="C0", lw=1.5))
    ax.set(title=f"FCN-{stride}s", xlabel="column (pixels)", ylabel="row (pixels)")
fig.colorbar(drawn, ax=axes, label="log10 of gradient / largest")
plt.show()
lines = [
    "| net | rows that the gradient reaches | side of the square with 95 % of it | with half of it |",
    "|---|---|---|---|",
]
for stride, values in fields.items():
    reached = np.flatnonzero(values.any(1))
    sides = [side_of(values, share) for share in (0.95, 0.5)]
    lines.append(f"| FCN-{stride}s | {reached[-1] - reached[0] + 1} | {sides[0]} pixels | {sides[1]} pixels |")
display(
    Markdown(
        "The blue square holds 95 % of the gradient, of which each cell is the mean of 4×4 pixels.\n\n"
        + "\n".join(lines)
    )
)

# %% [markdown]
# All three nets have the same last map and see about as far. What changes is where the weight lies: with each finer map
# that is scored, a pixel depends more on what is right around it.
#
# To train them in full: `uv run train.py configs/segmentation/scenes_fcn32s.py`, and likewise 16s and 8s, whose configs
# say what they reach and in what time. Later nets for masks replace the convolutions by attention (SegFormer,
# [arXiv:2105.15203](https://arxiv.org/abs/2105.15203); EoMT, [arXiv:2503.19108](https://arxiv.org/abs/2503.19108));
# they are not in this house.
