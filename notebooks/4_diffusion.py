# %% [markdown]
# # 4 · There and back through noise
#
# A diffusion model learns one thing: to guess the clean example from a noisy one. This notebook drowns digits in noise,
# trains a net to denoise, looks at what the net has learned in the plane, where the right answer is known exactly, and
# then goes the way back from noise to digits: step by step, by different solvers, and on request. At the end it meets a
# GAN on the same data.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

from jaxgen.config.files import load
from jaxgen.diffusion.denoiser import denoiser
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.multistep import Dpm2M, UniPc
from jaxgen.diffusion.noise_distributions import LogNormal, LowDiscrepancy
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Euler, Heun, sample, start
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.metrics import fidelity
from jaxgen.models.mlp import MlpDenoiser
from jaxgen.nn.conditioning import one_hot
from jaxgen.noise import numbered
from jaxgen.pictures import diagram, sheet
from jaxgen.pictures.pixels import to_float
from jaxgen.plan.flops import flops
from jaxgen.program import Program
from jaxgen.sampling import draw

plt.rcParams.update({"figure.dpi": 80, "figure.facecolor": "white", "font.size": 9, "axes.titlesize": 9})


def learn(program):
    """Step through the training batches; return the last state, and the loss of each step."""
    state, losses = program.init(), []
    for batch in program.batches():
        state, scalars = program.step(state, batch)
        losses.append(scalars["loss"])
    return state, np.array(jax.device_get(losses))


def pictures(ax, image, sigma=0.0):
    """Show a grey image to which noise of this level was added, in a range that holds most of it."""
    ax.imshow(np.asarray(image)[..., 0], cmap="gray", vmin=-1 - 2 * sigma, vmax=1 + 2 * sigma)
    ax.set(xticks=[], yticks=[])


# %% [markdown]
# ## The way there
#
# Forward there is nothing to learn: `x = x0 + sigma · eps`, with normal noise `eps`. Pixels lie in [-1, 1], so at
# `sigma = 0.5` a digit can still be read, and at 20 it is gone. Each picture below has a grey scale of its own.

# %%
LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0)
experiment = load("diffusion/digits_conditional")
test = experiment.test.source.open()
test_rows = [test[i] for i in range(len(test))]
test_image = np.asarray(to_float(jnp.asarray(np.stack([row["image"] for row in test_rows]))))
test_label = np.array([row["label"] for row in test_rows], np.int32)
shown = [int(np.flatnonzero(test_label == digit)[0]) for digit in (3, 5, 8)]
eps = np.random.default_rng(0).standard_normal(test_image.shape).astype(np.float32)

fig, axes = plt.subplots(3, len(LEVELS), figsize=(9, 3.7), layout="constrained")
for row, i in zip(axes, shown, strict=True):
    for ax, sigma in zip(row, LEVELS, strict=True):
        pictures(ax, test_image[i] + sigma * eps[i], sigma)
for ax, sigma in zip(axes[0], LEVELS, strict=True):
    ax.set_title(f"σ = {sigma:g}")
fig.suptitle("Three test digits with more and more noise")
plt.show()

# %% [markdown]
# ## What there is to learn
#
# In the plane the best possible denoiser is known. The data are 25 Gaussians on a grid; with noise added they are wider
# Gaussians, and the mean of all clean points that a noisy one can come from is a formula (`GaussianMixture.denoise`).
# From a denoiser D follows the *score*, the gradient of the noisy data's log density: `(D(x) - x) / sigma²`. It points
# to where the data are denser.
#
# A small net is trained to denoise such points, at noise levels drawn at random, and never sees the formula.

# %%
POINT_STEPS = 2000
plane = load("diffusion/toy2d_edm")
grid25 = load("gan/grid25")
plane = dataclasses.replace(
    plane,
    objective=dataclasses.replace(
        plane.objective,
        net=dataclasses.replace(plane.objective.net, module=MlpDenoiser(width=128, depth=4)),
        path=Edm(),
        prediction=EdmPreconditioning(sigma_data=2.83),
        noise_distribution=LowDiscrepancy(distribution=LogNormal(mean=-1.2, std=1.6)),
        sampling=Sampling(solver=Heun(), schedule=Rho(steps=18)),
    ),
    train=grid25.train,
    test=grid25.test,
    metrics=(),
    steps=POINT_STEPS,
    batch_size=256,
)
in_plane = Program.of(plane)
point_state, point_losses = learn(in_plane)


# %%
def bound(program, state, condition):
    """The denoiser (x, sigma) → x0 of a state, for a condition."""
    objective = program.objective

    def net(z, noise):
        return objective.net.infer(state.nets["net"], z, noise, condition)

    return denoiser(net, objective.path, objective.prediction)


def estimate(program):
    """Compile one call of the denoiser, for labels where the net takes them."""
    classes = program.objective.classes

    def one(state, x, sigma, label):
        return bound(program, state, {"label": one_hot(label, classes)} if classes else {})(x, sigma)

    return program.map(one)


def distance(a, b):
    """The root mean square distance of points."""
    return np.sqrt(((a - b) ** 2).sum(1).mean())


source = grid25.train.source
exact = GaussianMixture(means=tuple(map(tuple, source.centres().tolist())), stds=(source.std,))
point_estimate = estimate(in_plane)
REACH, SIDE = 5.5, 19
line = np.linspace(-REACH, REACH, SIDE, dtype=np.float32)
places = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
fine = np.linspace(-REACH, REACH, 120, dtype=np.float32)
background = np.stack(np.meshgrid(fine, fine), -1).reshape(-1, 2)
points = source.open().take(np.arange(SIDE**2))["image"]
point_eps = np.random.default_rng(1).standard_normal(points.shape).astype(np.float32)
no_label = np.zeros(len(places), np.int32)

fig, axes = plt.subplots(2, 3, figsize=(9.2, 6.4), layout="constrained", sharex=True, sharey=True)
errors = []
for column, sigma in zip(axes.T, (2.0, 0.7, 0.25), strict=True):
    level = jnp.float32(sigma)
    density = np.asarray(exact.density(jnp.asarray(background), sigma)).reshape(len(fine), -1)
    right = np.asarray(exact.denoise(jnp.asarray(places), level))
    learned = np.asarray(point_estimate(point_state, places, level, no_label))
    for ax, estimated, name in zip(column, (right, learned), ("exact", "learned"), strict=True):
        ax.imshow(density, origin="lower", extent=(-REACH, REACH, -REACH, REACH), cmap="Blues", alpha=0.7)
        score = (estimated - places) / sigma**2
        length = np.linalg.norm(score, axis=1, keepdims=True)
        u, v = (score / np.maximum(length, 1e-9) * np.tanh(length / length.mean())).T
        ax.quiver(*places.T, u, v, color="#a02020", angles="xy", scale=1.7, scale_units="xy", width=0.005)
        ax.set(title=f"{name} score, σ = {sigma:g}", xlim=(-REACH, REACH), ylim=(-REACH, REACH))
    noisy = points + sigma * point_eps
    wanted = np.asarray(exact.denoise(jnp.asarray(noisy), level))
    got = np.asarray(point_estimate(point_state, noisy, level, no_label))
    errors.append((sigma, distance(got, wanted), distance(wanted, points)))
for ax in axes[:, 0]:
    ax.set_ylabel("y")
for ax in axes[1]:
    ax.set_xlabel("x")
plt.show()
lines = ["| σ | error of the net | what no denoiser can know |", "|---|---|---|"]
lines += [f"| {sigma:g} | {error:.3f} | {rest:.3f} |" for sigma, error, rest in errors]
display(Markdown("\n".join(lines)))

# %% [markdown]
# Blue is the density of the noisy data, arrows its score; long arrows are shortened. At high noise all arrows point to
# the middle of everything, at low noise to the nearest Gaussian. The table gives root mean square distances, over noisy
# data points, from the net's estimate to the exact one, and from the exact one to the clean point: the second is what
# the noise has destroyed, and nobody gets below it.
#
# ## The digits
#
# The net for images is a small U-Net. Noise level and class become one vector, which enters every block. In training
# the class is replaced by "none" at times, so that the net also learns digits of no particular kind. The experiment is
# `configs/diffusion/digits_conditional.py` with half the channels and a fifth of the steps, which is little.

# %%
DIGIT_STEPS = 400
experiment = dataclasses.replace(
    experiment,
    objective=dataclasses.replace(
        experiment.objective,
        net=dataclasses.replace(
            experiment.objective.net, module=experiment.objective.net.module.clone(model_channels=16)
        ),
        sampling=Sampling(solver=Heun(), schedule=Rho(steps=18)),
    ),
    steps=DIGIT_STEPS,
)
digits = Program.of(experiment)
objective = experiment.objective
NONE = objective.classes  # the label that stands for no class
unet = objective.net.module
inputs = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), {"label": one_hot(jnp.zeros(1, jnp.int32), NONE)}
diagram.draw({"The U-Net: a noisy image, its noise level and a class → an image": diagram.blocks(unet, *inputs)})

# %%
digit_state, digit_losses = learn(digits)

# %% [markdown]
# ### One call at each noise level
#
# What does the net make of the drowned digits above, in one call? It knows nothing of the clean ones and is told no
# class.

# %%
digit_estimate = estimate(digits)
labels = np.full(len(test_image), NONE, np.int32)
estimates, errors = {}, []
for sigma in (0.05, *LEVELS[1:], 80.0):
    noisy = test_image + np.float32(sigma) * eps
    estimates[sigma] = np.asarray(digit_estimate(digit_state, noisy, jnp.float32(sigma), labels))
    errors.append((sigma, ((estimates[sigma] - test_image) ** 2).mean()))

fig, axes = plt.subplots(2, len(LEVELS), figsize=(10, 2.9), layout="constrained")
one = shown[1]
for column, sigma in zip(axes.T, (*LEVELS[1:], 80.0), strict=True):
    pictures(column[0], test_image[one] + sigma * eps[one], sigma)
    pictures(column[1], estimates[sigma][one])
    column[0].set_title(f"σ = {sigma:g}")
axes[0, 0].set_ylabel("noisy")
axes[1, 0].set_ylabel("one call")
plt.show()

# %%
train = experiment.train.source.open()
mean = np.mean([train[i]["image"] for i in range(len(train))], 0) / 127.5 - 1
sigmas, found = np.array(errors).T
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
window = np.convolve(digit_losses, np.ones(20) / 20, "valid")
left.plot(np.arange(20, DIGIT_STEPS + 1), window)
left.set(title="training loss, averaged over 20 steps", xlabel="step", ylabel="weighted squared error", ylim=(0, None))
right.plot(sigmas, found, "o-", label="the net, one call")
right.plot(sigmas, sigmas**2, "k:", label="noisy image as it is: σ²")
right.axhline(((test_image - mean) ** 2).mean(), color="grey", ls="--", label="mean of all digits")
right.set(title="error on test digits", xlabel="σ", ylabel="squared error of a pixel", xscale="log", yscale="log")
right.set(ylim=(found.min() / 2, 2))
right.legend(fontsize=8)
for ax in (left, right):
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The estimate is the mean of all digits that the noisy image can come from. With little noise that is one digit. With
# more there are several, and their mean is a blur; at σ = 80 it is the mean of all digits, and one call makes the same
# grey cloud of any noise. That is why the way back needs many calls: each step goes a little way towards the estimate,
# which leaves fewer digits possible, and asks again.
#
# ## The way back
#
# `sampling.run` follows the solver from pure noise to an image; with `trace=True` it returns the states at all noise
# levels, and the estimates that led from each to the next.

# %%


def walk(program):
    """Compile the way back for keys and labels: samples, the states on the way and the estimates."""
    objective = program.objective

    def run(state, keys, label):
        noise = objective.noise(keys, program.data.element["image"][0])
        condition = {"label": one_hot(label, objective.classes)}

        def net(x, sigma, condition):
            return bound(program, state, condition)(x, sigma)

        return objective.sampling.run(net, objective.path, noise, keys, condition=condition, trace=True)

    return program.map(run)


SAMPLES = 200
keys = numbered(jax.random.key(1), jnp.arange(SAMPLES))
asked = np.arange(SAMPLES, dtype=np.int32) % 10
back = walk(digits)
plain, way = back(digit_state, keys, asked)
states, guesses = np.asarray(way.x), np.asarray(way.x0)
levels = objective.sampling.schedule.sigmas(objective.path)

read = digits.map(DigitsCnn().classifier())
as_asked = np.asarray(read(np.clip(np.asarray(plain), -1, 1))).argmax(1) == asked
picked = {digit: int(np.flatnonzero(as_asked & (asked == digit))[0]) for digit in (3, 8)}
columns = np.unique(np.linspace(0, len(levels) - 2, 9).round().astype(int))
fig, axes = plt.subplots(4, len(columns) + 1, figsize=(10.5, 4.7), layout="constrained")
for pair, (digit, place) in zip((axes[:2], axes[2:]), picked.items(), strict=True):
    for column, i in zip(pair.T, columns, strict=False):
        pictures(column[0], states[i, place], levels[i])
        pictures(column[1], guesses[i, place])
    pictures(pair[0, -1], states[-1, place])
    pair[1, -1].axis("off")
    pair[0, 0].set_ylabel(f"asked for {digit}:\nx")
    pair[1, 0].set_ylabel("estimate")
for ax, i in zip(axes[0], columns, strict=False):
    ax.set_title(f"σ = {levels[i]:.2g}")
axes[0, -1].set_title("sample")
plt.show()
calls = objective.sampling.nfe(objective.path)
Markdown(
    f"From left to right: x on its way from noise to a digit, and below it the net's estimate at that level. The whole "
    f"way has {len(levels) - 1} steps of Heun's method and {calls} calls of the net for a sample. Shown are the first "
    "samples in which the digits classifier of jaxgen reads what was asked for; not all of them are, see below."
)

# %% [markdown]
# There and back in one drawing, with a few of the levels: forward each picture has more of the same noise; backward the
# net stands between any two, and is asked anew at each level.

# %%
net_block = diagram.blocks(unet, *inputs, depth=0)[-1]


def shown_at(image, sigma):
    """A picture of the diagram, its noise level below."""
    return diagram.Shown(image=np.asarray(image) / (1 + 2 * sigma), caption=f"σ = {sigma:.2g}")


there = [shown_at(test_image[one] + sigma * eps[one], sigma) for sigma in (0.0, 0.25, 1.0, 5.0, 20.0)]
stops = np.linspace(0, len(levels) - 1, 4).round().astype(int)
there_and_back = [shown_at(states[i, picked[3]], float(levels[i])) for i in stops]
backward = [item for picture in there_and_back[1:] for item in (net_block, picture)]
diagram.draw({"there: nothing to learn": there, "back: the net at each step": [there_and_back[0], *backward]})

# %% [markdown]
# ## Fewer calls
#
# The way back is a differential equation, and how well it is followed depends on the solver. On three Gaussians whose
# denoiser is known exactly, nothing but the solver's own error is left. It is measured against a solution with 400
# steps.

# %%
three = GaussianMixture(means=((-1.0, 0.0), (0.5, 0.8), (0.7, -0.9)), stds=(0.3, 0.4, 0.5))
begin = np.random.default_rng(0).standard_normal((256, 2)).astype(np.float32)
unused = numbered(jax.random.key(0), jnp.arange(len(begin)))  # these solvers add no noise on the way


def solve(solver, steps):
    """Follow the exact denoiser in so many steps; return the end points and the number of calls."""
    sigmas = Rho(steps=steps, to_zero=False).sigmas(Edm())
    run = in_plane.map(lambda noise: sample(solver, three.denoise, sigmas, start(noise, sigmas), unused))
    return np.asarray(run(begin)), len(solver.levels(sigmas))


reference, _ = solve(UniPc(order=3), 400)
solvers = {"Euler": Euler(), "Heun": Heun(), "DPM++ 2M": Dpm2M(), "UniPC 3": UniPc(order=3)}
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, solver in solvers.items():
    runs = [solve(solver, steps) for steps in (6, 12, 24, 48)]
    wrong = [distance(end, reference) for end, _ in runs]
    ax.loglog([calls for _, calls in runs], wrong, "o-", label=f"{name}, order {solver.order}")
ax.set(title="error of the end points", xlabel="calls of the denoiser", ylabel="root mean square distance")
ax.set_xticks((6, 12, 24, 48, 96), (6, 12, 24, 48, 96))
ax.minorticks_off()
ax.grid(alpha=0.3)
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# Twice the calls halve the error of a method of order 1, and quarter it at order 2: straight lines, each as steep as
# its order, once steps are small enough. A high order pays late: with few calls its line may lie above the others.
#
# ## On request
#
# Classifier-free guidance calls the net twice at each level, with the class and without, and goes further in the
# direction in which they differ: `none + weight · (class - none)`. Weight 0 ignores the class, weight 1 is the net
# itself, above 1 the class counts more than the data say. The classifier that ships with jaxgen reads the samples.

# %%
guided = dataclasses.replace(
    digits,
    experiment=dataclasses.replace(experiment, objective=objective.with_options({"guidance": ClassifierFree(scale=3)})),
)
nothing = np.full(SAMPLES, NONE, np.int32)
by_weight = {
    0: np.asarray(back(digit_state, keys, nothing)[0]),
    1: np.asarray(plain),
    3: np.asarray(walk(guided)(digit_state, keys, asked)[0]),
}
rows = []
for weight, images in by_weight.items():
    seen = np.asarray(read(np.clip(images, -1, 1))).argmax(1)
    right, groups = seen == asked, asked if weight else seen
    spread = np.sqrt(np.mean([images[groups == digit].var(0).mean() for digit in range(10) if (groups == digit).any()]))
    rows.append((weight, right.mean(), spread))

fig, axes = plt.subplot_mosaic("001122;aaabbb", figsize=(12, 5), layout="constrained")
for name, (weight, images) in zip("012", by_weight.items(), strict=True):
    axes[name].imshow(sheet.samples(images[:50], None, (), columns=10))
    columns = "asked for 0 to 9, from left to right" if weight else "asked for nothing"
    axes[name].set(xticks=[], yticks=[], title=f"weight {weight}", xlabel=columns)
weights, right, spread = np.array(rows).T
names = [f"{weight:g}" for weight in weights]
axes["a"].bar(names, right, color="#2a7f4f")
axes["a"].axhline(0.1, color="k", ls=":", lw=1)
axes["a"].set(title="read as asked for\n(dotted: by chance)", xlabel="weight", ylabel="share", ylim=(0, 1))
axes["b"].bar(names, spread, color="#1f3a93")
axes["b"].set(title="variety within a class", xlabel="weight", ylabel="standard deviation of a pixel")
plt.show()
Markdown(
    f"Asked for nothing, {right[0]:.0%} are read as the digit of their column; with weight 1 {right[1]:.0%} are, with "
    f"weight 3 {right[2]:.0%}. The standard deviation of a pixel within a class is {spread[1]:.2f} at weight 1 and "
    f"{spread[2]:.2f} at weight 3: this is what guidance does to variety. (For weight 0 the classes are those read.)"
)

# %% [markdown]
# ## Diffusion and a GAN on the same data
#
# R3GAN's game (notebook 3) and the diffusion model above learn the same 25 Gaussians with dense nets of the same width
# and depth. To be fair, both trainings get the same number of floating-point operations, counted in the steps that are
# run; the GAN's step costs another sum, so it makes another number of steps.

# %%


def step_cost(program):
    """Floating-point operations of one training step."""
    return flops(program.objective.step, program.shapes, program.spec, jax.random.key(0))


budget = POINT_STEPS * step_cost(in_plane)
gan_steps = budget // step_cost(Program.of(grid25))
against = Program.of(dataclasses.replace(grid25, steps=gan_steps))
gan_state = against.init()
for batch in against.batches():
    gan_state, _ = against.step(gan_state, batch)

# %%
contestants = {
    "GAN": (against, gan_state),
    "diffusion": (in_plane, point_state),
}
fig, axes = plt.subplots(2, 3, figsize=(10, 6.7), layout="constrained")
real = source.open().take(np.arange(2500))["image"]
middle, reach = source.centres()[12], 6 * source.std
drawn = {"data": real}
lines = [
    "| | steps | modes of 25 | high quality | std within modes, of the data's | calls for a sample |",
    "|---|---|---|---|---|---|",
]
for name, (program, state) in contestants.items():
    drawn[name] = draw(program, state, range(2500))
    modes = fidelity.modes(drawn[name], source.centres(), source.std)
    inside = "-" if modes.std_ratio is None else f"{modes.std_ratio:.2f}"
    steps, calls = program.experiment.steps, program.objective.protocol()["nfe"]
    lines.append(f"| {name} | {steps:,} | {modes.covered} | {modes.high_quality:.3f} | {inside} | {calls} |")
for column, (name, x) in zip(axes.T, drawn.items(), strict=True):
    column[0].plot(*x.T, ".", ms=2, color="#1f3a93")
    column[0].set(title=name, xlim=(-REACH, REACH), ylim=(-REACH, REACH), xlabel="x", aspect="equal")
    column[1].plot(*x.T, ".", ms=3, color="#1f3a93")
    column[1].add_patch(plt.Circle(middle, 3 * source.std, fill=False, color="#c0392b"))
    column[1].set(xlim=middle[0] + np.array([-reach, reach]), ylim=middle[1] + np.array([-reach, reach]))
    column[1].set(title="the Gaussian in the middle", xlabel="x", aspect="equal")
axes[0, 0].set_ylabel("y")
axes[1, 0].set_ylabel("y")
plt.show()
display(Markdown("\n".join(lines)))

# %% [markdown]
# The lower row enlarges one Gaussian; what lies within three standard deviations of a centre, the circle, is "of high
# quality". A ratio of standard deviations below 1 means that the modes are filled too narrowly, above 1 too widely. The
# GAN makes a sample in one call of its net, diffusion in many: training cost the same, sampling does not. One seed and
# one small problem are an example; the README has several seeds.
