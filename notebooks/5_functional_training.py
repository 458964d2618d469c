# %% [markdown]
# # 5 · Functional training
#
# Training is a function: `state, scalars = step(state, batch)`. Nothing else changes, and nothing else is remembered.
# This notebook shows what follows from that: a step gives the same bits each time, a run goes on from any step, a new
# objective is twenty lines, many seeds train at once, gradients pass through the step, and the same step runs on one
# device or on eight, however its arrays are split.

# %%
import dataclasses
import importlib.util
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from IPython.display import Markdown, display

from jaxgen import tree
from jaxgen.config.files import load
from jaxgen.learner import Learner, blank, first_state, joint_step
from jaxgen.metrics.accumulators import Mean
from jaxgen.models.cnn import Cnn
from jaxgen.objective import TotalSteps
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp
from jaxgen.pictures import diagram
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import to_float
from jaxgen.plan.scaling import scale
from jaxgen.plan.topologies import topology
from jaxgen.program import Program
from jaxgen.runs.checkpoints import Checkpoints

jax.config.update("jax_num_cpu_devices", 8)  # eight fake devices; before the first use of one
plt.rcParams.update({"figure.dpi": 80, "figure.facecolor": "white", "font.size": 9, "axes.titlesize": 9})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})


def table(head, rows):
    """Show rows as a table."""
    lines = [" | ".join(map(str, row)) for row in (head, ["---"] * len(head), *rows)]
    display(Markdown("\n".join(f"| {line} |" for line in lines)))


# %% [markdown]
# ## The state
#
# An experiment is a value: the config of a small classifier of digits, with fewer steps. A `Program` lays it out on
# devices. The shapes of the whole state are known before any number is computed.

# %%
experiment = dataclasses.replace(load("classification/digits_cnn"), steps=24, batch_size=64)
program = Program.of(experiment, devices=jax.devices()[:1])
params = program.shapes.nets["net"].params
table(["array of params", "shape", "numbers"], [[p, x.shape, f"{x.size:,}"] for p, x in tree.leaves(params)])

# %%
module = experiment.objective.net.module
image = jax.ShapeDtypeStruct((1, *program.spec["image"].shape[1:]), jnp.float32)
diagram.draw({"The net that these arrays belong to": diagram.blocks(module, image, depth=2)})

# %% [markdown]
# The diagram is drawn from the net itself. Its parameters are one part of a `Net`; the optimizer's two moments, the
# moving average and the batch statistics travel with them. All of it is a tree of arrays: no optimizer object, no
# function, nothing hidden. Every number here takes four bytes.

# %%
layers = list(dict.fromkeys(path.rpartition("/")[0] for path, _ in tree.leaves(params)))
kinds = {"params": "parameters", "opt": "optimizer", "ema": "moving average", "stats": "batch statistics"}
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
left = np.zeros(len(layers))
for name, label in kinds.items():
    leaves = list(tree.leaves(getattr(program.shapes.nets["net"], name)))
    kilobytes = np.array([sum(4 * x.size for path, x in leaves if f"{layer}/" in path) / 1e3 for layer in layers])
    axes.barh(layers, kilobytes, left=left, label=label)
    left += kilobytes
axes.invert_yaxis()
axes.set(xlabel="kB", ylabel="layer", title="What a Net holds: most of it is the optimizer's and the average's")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A pure step
#
# `objective.step(state, batch, key)` has no side effects. Called twice with the same arguments it gives the same state,
# bit for bit: the digest below is a SHA-256 over all arrays. Dropout and augmentation draw from the key, so another key
# gives another state, as another batch does.

# %%
objective = experiment.objective
state = program.init()
step = jax.jit(objective.step)
batches = list(program.batches())
key = jax.random.key(1)
after, scalars = step(state, batches[0], key)
calls = {
    "once": after,
    "once more": step(state, batches[0], key)[0],
    "another key": step(state, batches[0], jax.random.key(2))[0],
    "another batch": step(state, batches[1], key)[0],
}
table(["call", "digest of the new state"], [[name, tree.digest(new)[:16]] for name, new in calls.items()])
assert tree.digest(calls["once"]) == tree.digest(calls["once more"])

# %% [markdown]
# As states are trees, what a step did is a subtraction. (A few steps are taken first, as the learning rate rises from
# zero.) Adam moves the numbers of all arrays by the same order of size, whatever their gradients' sizes are.

# %%
before = state
for k in range(5):
    before, _ = step(before, batches[k], jax.random.fold_in(key, k))
after, _ = step(before, batches[5], key)
change = jax.tree.map(lambda a, b: a - b, after.nets["net"].params, before.nets["net"].params)
names = [path for path, _ in tree.leaves(change)]
size = [float(jnp.sqrt(jnp.square(x).mean())) for _, x in tree.leaves(change)]
figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
axes.barh(names, size, color=["tab:orange" if name.endswith("kernel") else "tab:blue" for name in names])
axes.invert_yaxis()
axes.set(xlabel="root mean square of after − before", title="One step, array by array (kernels in orange)")
plt.show()

# %% [markdown]
# ## Key and batch are functions of position
#
# `Program.step` is the same step with a key made from (seed, step), and batch k is made from (seed, k). So neither the
# random state nor the place in the data is part of a checkpoint. Below, copies of the state at three steps are kept,
# and the run is taken up again from each. (The step donates its state: the copy is what stays.)


# %%
def run(program, state, start, stop):
    """Train from one step to another, and return the state and the losses."""
    losses = []
    for batch in program.batches(start, stop):
        state, scalars = program.step(state, batch)
        losses.append(scalars["loss"])
    return state, np.array(jax.device_get(losses))


def copied(state):
    return jax.tree.map(jnp.copy, state)


kept, losses = {}, []
for start in range(0, 24, 8):
    kept[start] = copied(state)
    state, part = run(program, state, start, start + 8)
    losses.extend(part)
whole = tree.digest(state)
again = {start: run(program, kept[start], start, 24) for start in kept}
table(
    ["taken up at step", "digest at step 24", "same bits"],
    [[start, tree.digest(end)[:16], tree.digest(end) == whole] for start, (end, _) in again.items()],
)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", width_ratios=(3, 2))
left.plot(range(1, 25), losses, color="0.75", lw=6, label="the whole run")
for start, (_, part) in again.items():
    left.plot(range(start + 1, 25), part, "o-", ms=3 + start / 8, lw=1, label=f"taken up at step {start}")
left.set(xlabel="step", ylabel="loss", title="Each run that is taken up again lies on the first")
left.legend(frameon=False)
first = np.asarray(next(program.batches(16, 17))["image"])[:8, ..., 0]
gap = np.full((1, 64), 255, np.uint8)
rows = np.concatenate([np.hstack(np.asarray(batches[16]["image"])[:8, ..., 0]), gap, np.hstack(first)])
right.imshow(rows, cmap="gray", vmin=0, vmax=255)
right.set(xticks=(), yticks=(3.5, 12.5), yticklabels=("from step 0", "from step 16"))
right.set_title("Batch 16: the seventeenth of a run, or its first")
for side in right.spines.values():
    side.set_visible(False)
assert (first == np.asarray(batches[16]["image"])[:8, ..., 0]).all()

# %% [markdown]
# ## A new objective
#
# The loop asks an objective for `check`, `init`, `step`, `evaluate` and `preview`; what is learned is its own affair.
# This one needs no labels: it turns each image by 0, 1, 2 or 3 right angles and asks the net how often
# ([arXiv:1803.07728](https://arxiv.org/abs/1803.07728)). Evaluation, checkpoints, sharding, plans and commands serve it
# as they serve the others.


# %%
@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """Tell by how many right angles an image was turned."""

    net: Learner
    microbatches: int = 1
    total_steps: TotalSteps = 1
    batch_parts = 1
    learners = property(lambda self: {"net": self.net})

    def check(self, spec, classes):
        assert spec["image"].shape[1] == spec["image"].shape[2], "images must be square"

    def init(self, key, spec):
        return first_state({"net": self.net.init(key, blank(spec), total_steps=self.total_steps)})

    def step(self, state, batch, key):
        def loss(params, stats, part, key):
            image, turns = turned(part, key)
            logits, _, moved = self.net.train(params["net"], stats["net"], key, image)
            value = optax.softmax_cross_entropy_with_integer_labels(logits, turns).mean()
            return value, ({"net": moved}, {"accuracy": (logits.argmax(-1) == turns).mean()})

        return joint_step(self.learners, state, batch, key, loss, total_steps=self.total_steps)

    def evaluate(self, state, batch, key):
        image, turns = turned(batch, key)
        return {"accuracy": Mean.of(self.net.infer(state.nets["net"], image).argmax(-1) == turns, batch["valid"])}

    def preview(self, state, batch, key):
        return {"turned": Panels(images=turned(batch, key)[0][None])}


def turned(batch, key):
    """Return images, each turned by its own number of right angles, and these numbers."""
    image = to_float(batch["image"])
    turns = jax.random.randint(jax.random.fold_in(key, 1), len(image), 0, 4)
    ways = jnp.stack([jnp.rot90(image, k, axes=(1, 2)) for k in range(4)])
    return ways[turns, jnp.arange(len(image))], turns


net = Cnn(classes=4, widths=(24, 48), depths=(1, 1), hidden=(64,), dropout=0.1)
turning = dataclasses.replace(
    experiment,
    objective=Turns(net=Learner(module=net, optimizer=Optimizer(learning_rate=Constant(value=3e-3)))),
    train=dataclasses.replace(experiment.train, transforms=()),
    steps=200,
)
turner = Program.of(turning, devices=jax.devices()[:1])
trained, losses = run(turner, turner.init(), 0, turning.steps)

# %%
source = turning.test.source.open()
test = {name: np.stack([source[i][name] for i in range(len(source))]) for name in ("image", "label")}
image, turns = turned(test, jax.random.key(3))
guess = turning.objective.net.infer(trained.nets["net"], image).argmax(-1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
left.plot(losses, lw=1)
left.set(xlabel="step", ylabel="cross-entropy", title="A new objective learns", ylim=(0, None))
left.axhline(np.log(4), color="0.5", ls=":", label="guessing: ln 4")
left.legend(frameon=False)
right.bar(range(10), [float((guess == turns)[test["label"] == k].mean()) for k in range(10)])
right.axhline(0.25, color="0.5", ls=":")
right.set(xlabel="digit", ylabel="share told right", xticks=range(10), ylim=(0, 1))
right.set_title(f"Test images: {float((guess == turns).mean()):.3f} are told right; guessing gives 0.25")
plt.show()

# %% [markdown]
# A half turn of a 0, a 1 or an 8 is hardly seen, which their bars show. Below are test images as the net sees them;
# those that it gets wrong have a red title.

# %%
figure, axes = plt.subplots(2, 10, figsize=(9, 2.3), layout="constrained")
told = np.asarray(guess == turns)
for ax, i in zip(axes.flat, [*np.flatnonzero(told)[:10], *np.flatnonzero(~told)[:10]], strict=False):
    ax.imshow(image[i, ..., 0], cmap="gray")
    ax.set_title(f"{90 * int(guess[i])}°", color="black" if guess[i] == turns[i] else "tab:red")
for ax in axes.flat:
    ax.set_axis_off()
figure.suptitle("Turned test images and what the net says: right above, wrong below", fontsize=9)
plt.show()

# %% [markdown]
# ## Many seeds at once
#
# `init` and `step` are functions, so `jax.vmap` maps them over seeds: here eight small classifiers, each with its own
# weights and its own dropout, in one call, on the same batches. The spread tells what a difference between two single
# runs is worth.

# %%
small = Cnn(classes=10, widths=(8,), depths=(1,), hidden=(32,), dropout=0.2)
plain = Learner(module=small, optimizer=Optimizer(learning_rate=Constant(value=0.05), method=Sgd()))
learning = dataclasses.replace(objective, net=plain, smoothing=0.0)
keys = jax.random.split(jax.random.key(0), 8)
states = jax.vmap(lambda key: learning.init(key, program.spec))(keys)
stepped = jax.jit(jax.vmap(learning.step, in_axes=(0, None, 0)))
seeds = []
for k, batch in enumerate(program.batches(0, 48)):
    states, scalars = stepped(states, batch, jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys))
    seeds.append(scalars["loss"])
seeds = np.array(jax.device_get(seeds))
figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
axes.plot(range(1, 49), seeds, color="tab:blue", alpha=0.4, lw=1)
axes.plot(range(1, 49), seeds.mean(1), color="black", label="mean of the eight seeds")
axes.set(xlabel="step", ylabel="loss", title="Eight trainings in one: how far do seeds differ?")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A gradient through the step
#
# What is a function can be differentiated. The first of the eight takes one more step, then comes the loss on other
# images: its gradient with respect to the training images says which pixels, made brighter, would have made that step a
# better or a worse one.

# %%
one = jax.tree.map(lambda x: x[0], states)


def loss_after(image):
    """Return the loss on one batch after a step on another, with these images."""
    moved, _ = learning.step(one, {**batches[20], "image": image}, key)
    logits = plain.infer(moved.nets["net"], to_float(batches[21]["image"]))
    return optax.softmax_cross_entropy_with_integer_labels(logits, batches[21]["label"]).mean()


image = to_float(batches[20]["image"])
slope = np.asarray(jax.jit(jax.grad(loss_after))(image))[..., 0]
most = np.argsort(-np.square(slope).sum((1, 2)))[:10]
figure, axes = plt.subplots(2, 10, figsize=(9, 2.2), layout="constrained")
for (top, bottom), i in zip(axes.T, most, strict=True):
    top.imshow(image[i, ..., 0], cmap="gray")
    shown = bottom.imshow(slope[i], cmap="RdBu_r", vmin=-np.abs(slope).max(), vmax=np.abs(slope).max())
    top.set_axis_off()
    bottom.set_axis_off()
figure.colorbar(shown, ax=axes, label="d loss / d pixel", fraction=0.02)
figure.suptitle(
    "The ten training images that the loss on others depends on most, and where (blue lowers it)", fontsize=9
)
plt.show()

# %% [markdown]
# ## One step, three layouts
#
# A mesh says how devices are laid out, a rule where each array of the state lies. Both are fields of the experiment, so
# a layout is swapped by `dataclasses.replace`; the objective and its step do not change. The losses agree up to the
# order of additions, which differs from layout to layout.

# %%
layouts = {
    "one device": (MeshShape(), experiment.rule, 1),
    "eight copies": (MeshShape(replica=8), experiment.rule, 8),
    "two copies, each split over four": (MeshShape(replica=2, fsdp=4), Fsdp(smallest=512), 8),
}
programs = {
    name: Program.of(dataclasses.replace(experiment, mesh=mesh, rule=rule), devices=jax.devices()[:devices])
    for name, (mesh, rule, devices) in layouts.items()
}
programs["one device"] = program  # compiled already
runs = {name: run(program, program.init(), 0, 8) for name, program in programs.items()}
reference = runs["one device"][1]


def held(program):
    """Return the bytes of the state on one device."""
    return sum(np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for _, x in tree.leaves(program.shapes))


table(
    ["layout", "devices", "state on each, kB", "loss of step 8", "largest difference in 8 losses"],
    [
        [
            name,
            layouts[name][2],
            f"{held(programs[name]) / 1e3:.0f}",
            f"{losses[-1]:.6f}",
            f"{np.abs(losses - reference).max():.1e}",
        ]
        for name, (_, losses) in runs.items()
    ],
)
assert all(np.allclose(losses, reference, atol=1e-4) for _, losses in runs.values())

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.6), layout="constrained", sharey=True)
for ax, (name, laid_out) in zip(axes, programs.items(), strict=True):
    rows = [(path, leaf) for path, leaf in tree.leaves(laid_out.shapes.nets["net"].params)]
    count = laid_out.mesh.size
    parts = np.zeros((len(rows), count))
    for i, (_, leaf) in enumerate(rows):
        places = leaf.sharding.devices_indices_map(leaf.shape)
        order = {index: k for k, index in enumerate(dict.fromkeys(map(str, places.values())))}
        for j, device in enumerate(laid_out.mesh.devices.flat):
            parts[i, j] = order[str(places[device])] + 1 if len(order) > 1 else 0
    ax.imshow(parts, cmap="tab10", vmin=0, vmax=9, aspect="auto")
    ax.set(xticks=range(count), xlabel="device", title=name)
    ax.set_yticks(range(len(rows)), [path for path, _ in rows], fontsize=7)
    ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1)
    ax.tick_params(which="both", length=0)
figure.suptitle(
    "Who holds which part of each array: a colour for each part, blue where a device holds the whole", fontsize=9
)
plt.show()

# %% [markdown]
# ## A checkpoint for another mesh
#
# A checkpoint holds arrays, not layouts. One that eight copies wrote is read into the shapes and shardings of the split
# layout, with the same digest, and training goes on there.

# %%
copies, split = programs["eight copies"], programs["two copies, each split over four"]
with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
    written = runs["eight copies"][0]
    checkpoints.save(8, written)
    read = checkpoints.restore(8, split.shapes)
    same = tree.digest(read) == tree.digest(written)
_, moved = run(split, read, 8, 16)
_, stayed = run(programs["one device"], runs["one device"][0], 8, 16)
table(
    ["the digest is the same", "largest difference of the losses from one device's"],
    [[same, f"{np.abs(moved - stayed).max():.1e}"]],
)

# %%
figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
axes.plot(range(1, 17), [*reference, *stayed], color="0.75", lw=6, label="one device, all the way")
axes.plot(range(1, 9), runs["eight copies"][1], "o-", ms=3, lw=1, label="eight copies")
axes.plot(range(9, 17), moved, "s-", ms=3, lw=1, label="read by two copies, split over four")
axes.set(xlabel="step", ylabel="loss", title="A run that changes its mesh at step 8")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A plan for devices that are not here
#
# To compile a program, a description of the devices is enough. `jaxgen plan` compiles the real step for a TPU topology
# and counts what it keeps, computes and sends; times are a roofline, a bound that no run beats. Here is this notebook's
# classifier on four chips and on a pod of 256, with the same batch on each chip: what a chip holds and computes hardly
# grows with their number. (Without the extra `plan` there is no TPU compiler, and this process's fake devices, which
# have no speed, take the chips' place.)

# %%
names = ["v5e:2x2", "v5e:16x16"] if importlib.util.find_spec("libtpu") else ["cpu:2", "cpu:8"]
plans = scale(experiment, program.data, [topology(name) for name in names], 256, lambda line: None)
table(
    ["topology", "batch", "MB a chip", "MFLOP a step", "MB sent a step", "bound by", "µs a step, at least"],
    [
        [
            row["topology"],
            row["batch_size"],
            f"{row['bytes_per_chip']['total'] / 1e6:.1f}",
            f"{row['flops_per_chip_per_step'] / 1e6:,.0f}",
            f"{row['collective_bytes']['total'] / 1e6:.2f}",
            row["roofline"]["bound"] if row["step_seconds"] else "not known",
            f"{1e6 * row['step_seconds']:.1f}" if row["step_seconds"] else "not known",
        ]
        for row in plans
    ],
)

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
left = np.zeros(len(plans))
for kind in plans[0]["bytes_per_chip"]:
    if kind != "total":
        size = np.array([row["bytes_per_chip"][kind] / 1e6 for row in plans])
        axes.barh([f"{row['topology']}, batch {row['batch_size']}" for row in plans], size, left=left, label=kind)
        left += size
axes.invert_yaxis()
axes.set(xlabel="MB on each chip", title="What each chip holds, on few of them and on many")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# Where to read on: `state.py`, `objective.py`, `learner.py`, `program.py` and `loop.py` in `jaxgen/`, short files,
# are most of what was used here; `CONTRIBUTING.md` says how to add an objective, a rule or a model.
