# %% [markdown]
# # 3 · A game of two nets
#
# A generator G makes examples of noise, a discriminator D tells them from real ones, and each is the other's teacher.
# This notebook watches the game in the plane, where everything can be seen: the samples, what D thinks of every place,
# and where it sends them. Then it plays the game of 2014 (arXiv:1406.2661) beside R3GAN's (arXiv:2501.05441) on the
# same data, walks through the noise, and makes handwritten digits.

# %%
import base64
import dataclasses
import io
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, Markdown, display
from PIL import Image

from jaxgen.adversarial.game import logits
from jaxgen.adversarial.generator import blank_inputs
from jaxgen.adversarial.losses import NonSaturating, likely_real
from jaxgen.config.files import load
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.metrics import fidelity
from jaxgen.noise import numbered
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.pictures import diagram, sheet
from jaxgen.program import Program
from jaxgen.sampling import draw

plt.rcParams.update({"figure.dpi": 80, "figure.facecolor": "white", "font.size": 9, "axes.titlesize": 9})
REAL, FAKE = "#2a7f4f", "#c0392b"

# %% [markdown]
# ## The data and the nets
#
# The data are 25 narrow Gaussians on a grid. Real data look like this more often than one would think: kinds that lie
# apart, with nothing in between. A generator that has found one of them and is not punished for forgetting the others
# collapses onto it, so the number of Gaussians that it reaches is a hard test.
#
# The experiment is `configs/gan/grid25.py`, with fewer steps. Both nets are a few dense layers; G starts from two
# numbers of noise. The diagram is drawn from the nets themselves.

# %%
STEPS = 6000
r3gan = dataclasses.replace(load("gan/grid25"), steps=STEPS)
program = Program.of(r3gan)
game = r3gan.objective
point = jnp.zeros((1, 2))
diagram.draw(
    {
        "G: noise → a point": diagram.blocks(game.generator.module, *blank_inputs(game.generator.module)),
        "D: a point → a logit, higher where more real": diagram.blocks(game.discriminator.module, point, {}),
    }
)

# %% [markdown]
# ## What each side wants
#
# In R3GAN's game D does not judge a point by itself. It sees pairs, one real and one fake, and the difference of its
# two logits says how likely the real one is the real one: `sigmoid(D(real) - D(fake))`. D minimises `-log` of that
# probability, G the same with the two swapped. Two penalties, R1 and R2, keep D's slope small at real and at generated
# points. The game of 2014 judges each point alone: `sigmoid(D(x))` is the probability that x is real, and there are no
# penalties.
#
# What a loss costs a side depends on the difference of logits only. Where D cannot tell the two apart, the difference
# is 0 and both sides pay log 2.

# %%
difference = np.linspace(-5, 5, 201, dtype=np.float32)
zero = np.zeros_like(difference)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
left.plot(difference, game.loss.discriminator(difference, zero), color=REAL, label="D pays")
left.plot(difference, game.loss.generator(difference, zero), color=FAKE, label="G pays")
left.plot(difference, game.loss.probability(difference, zero), "k:", label="probability that the real one is real")
left.set(title="R3GAN's game, by pairs", xlabel="D(real) − D(fake)", ylabel="loss in nats, and probability")
old = NonSaturating()
right.plot(difference, old.discriminator(zero + 20, difference), color=REAL, label="D pays for a fake")
right.plot(difference, old.generator(zero, difference), color=FAKE, label="G pays for a fake")
right.plot(difference, old.probability(difference, zero), "k:", label="probability of being real")
right.set(title="The game of 2014, by points", xlabel="D(fake)")
for ax in (left, right):
    ax.axhline(math.log(2), color="grey", lw=0.7, ls="--", label="log 2")
    ax.grid(alpha=0.3)
    ax.legend()
plt.show()

# %% [markdown]
# ## Watching the game
#
# A step is a pure function, `state, scalars = program.step(state, batch)`. Now and then the loop below looks at the
# state: at 2,500 samples, always of the same noise, and at D on a grid of places, its logits and their gradient. A
# gradient of D is what G learns from: it is the way D would have each point go.

# %%
REACH, CELLS, ARROWS, SAMPLES = 5.5, 72, 18, 2500
REPORTED = ("loss", "discriminator_loss", "paired_accuracy")
source = r3gan.train.source
real_points = source.open().take(np.arange(SAMPLES))["image"]


def lattice(cells):
    """Places f32[cells² 2] that lie evenly over the plane, row by row from below."""
    line = (np.arange(cells, dtype=np.float32) + 0.5) / cells * 2 * REACH - REACH
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def opinion(program):
    """Compile what D says: of each cell the probability of being real, and the gradient of its logit at the arrows."""
    objective = program.objective

    def say(state):
        def logit(x):
            return logits(objective.discriminator, state.nets["discriminator"], jnp.asarray(x), {})

        on_plane = logit(lattice(CELLS))
        likely = likely_real(objective.loss, on_plane, jnp.full_like(on_plane, logit(real_points).mean()))
        return likely, jax.grad(lambda x: logit(x).sum())(jnp.asarray(lattice(ARROWS)))

    return program.map(say)


def play(program, looks):
    """Train; return the last state, what each step reported, and what there was to see at some steps."""
    say, state, reports, seen = opinion(program), program.init(), [], {}
    for step, batch in enumerate(program.batches(), 1):
        state, scalars = program.step(state, batch)
        reports.append([scalars[name] for name in REPORTED])
        if step in looks:
            samples = draw(program, state, range(SAMPLES))
            likely, slope = map(np.asarray, say(state))
            found = fidelity.modes(samples, source.centres(), source.std)
            seen[step] = {"samples": samples, "likely": likely, "slope": slope, "found": found}
    return state, dict(zip(REPORTED, np.array(jax.device_get(reports)).T, strict=True)), seen


FRAMES = 20
LOOKS = sorted({max(1, round(STEPS * (i / (FRAMES - 1)) ** 2)) for i in range(FRAMES)})
state, reports, seen = play(program, LOOKS)


# %%
def draw_plane(ax, look, step):
    """Draw D's opinion, its arrows, and the samples."""
    likely = look["likely"].reshape(CELLS, CELLS)
    ax.imshow(likely, origin="lower", extent=(-REACH, REACH, -REACH, REACH), cmap="RdYlGn", vmin=0, vmax=1, alpha=0.55)
    slope, (x, y) = look["slope"], lattice(ARROWS).T
    length = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)
    u, v = (slope / length * np.tanh(length)).T  # steep slopes would hide the others
    ax.quiver(x, y, u, v, color="0.25", angles="xy", scale=1.8, scale_units="xy", width=0.004)
    ax.plot(*look["samples"][:700].T, ".", color="#1f3a93", ms=2)
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], title=f"step {step:,}")


strip = [LOOKS[i] for i in (0, 6, 11, 14, 19)]
fig, axes = plt.subplots(1, 6, figsize=(13, 2.5), layout="constrained")
axes[0].plot(*real_points[:700].T, ".", color=REAL, ms=2)
axes[0].set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal", title="real points")
for ax, step in zip(axes[1:], strip, strict=True):
    draw_plane(ax, seen[step], step)
fig.colorbar(axes[-1].images[0], ax=axes, label="probability of being real", shrink=0.8)
plt.show()

# %% [markdown]
# The strip shows generated points in blue. Green is where D takes a point for the real one when it is paired with an
# average real point, red where it does not; arrows show the gradient of its logit. At first D's slopes are broad and
# push the whole cloud around. Then D finds the gaps, and each point is drawn towards the nearest Gaussian.
#
# The same as an animation, a frame for each look:


# %%
def film(seen):
    """Make a GIF of looks, a frame for each; the last one stays longer."""
    # Few colours, the same in all frames: those of the map, greys, and blues.
    of_map = 255 * (0.55 * plt.get_cmap("RdYlGn")(np.linspace(0, 1, 24))[:, :3] + 0.45)
    greys, blue = np.repeat(np.linspace(0, 255, 6), 3).reshape(-1, 3), np.array([31, 58, 147])
    colours = np.concatenate([of_map, greys, blue + (255 - blue) * np.array([[0], [0.3], [0.6]])])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.astype(np.uint8).tobytes())
    fig, ax = plt.subplots(figsize=(3.2, 3.4), dpi=80, layout="constrained")
    shots = []
    for step, look in seen.items():
        ax.clear()
        draw_plane(ax, look, step)
        fig.canvas.draw()
        shot = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3])
        shots.append(shot.quantize(palette=palette, dither=Image.Dither.NONE))
    plt.close(fig)
    file = io.BytesIO()
    times = [300] * (len(shots) - 1) + [2500]
    shots[0].save(file, "GIF", save_all=True, append_images=shots[1:], duration=times, loop=0)
    return base64.b64encode(file.getvalue()).decode()


display(HTML(f'<img alt="The game in the plane, step by step" src="data:image/gif;base64,{film(seen)}">'))

# %% [markdown]
# ## What the losses say, and what they do not
#
# A classifier's loss falls while it learns. Here each side's loss depends on how good the other is, and neither says
# how good the samples are. At the equilibrium both are log 2 and D picks the real point of a pair half of the time; but
# two players who are equally bad also meet there. The number of Gaussians reached, and the share of the samples within
# three standard deviations of one ("high quality"), are measured on the samples themselves.

# %%


def smooth(values, width=100):
    """The average of the last so many steps, and nothing before there are as many."""
    return np.concatenate([np.full(width - 1, np.nan), np.convolve(values, np.ones(width) / width, "valid")])


def draw_progress(axes, reports, seen, **line):
    """Draw losses, D's success, and what the samples are worth, over the steps."""
    steps = np.arange(1, len(reports["loss"]) + 1)
    axes[0].plot(steps, smooth(reports["discriminator_loss"]), color=REAL, label="D's loss", **line)
    axes[0].plot(steps, smooth(reports["loss"]), color=FAKE, label="G's loss", **line)
    axes[1].plot(steps, smooth(reports["paired_accuracy"]), color="0.2", label="pairs that D tells apart", **line)
    quality = [look["found"].high_quality for look in seen.values()]
    axes[1].plot(list(seen), quality, color="#1f3a93", marker=".", label="samples of high quality", **line)
    axes[2].plot(list(seen), [look["found"].covered for look in seen.values()], color="#8e44ad", marker=".", **line)


fig, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
draw_progress(axes, reports, seen)
axes[0].axhline(math.log(2), color="grey", lw=0.8, ls="--", label="log 2: nobody can tell")
axes[0].set(title="losses, averaged over 100 steps", ylabel="nats")
axes[1].set(title="D's success, and the samples'", ylabel="share", ylim=(0, 1.02))
axes[2].set(title="Gaussians reached", ylabel="modes of 25", ylim=(0, 26))
for ax in axes:
    ax.set_xlabel("step")
    ax.grid(alpha=0.3)
for ax in axes[:2]:
    ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## The game of 2014 on the same data
#
# The same nets, the same number of steps and of points for each update; what changes are the rules: each point is
# judged alone, there are no penalties, and the optimizer is the one that was usual with these rules (Adam with a
# constant rate of 2e-4 and b1 = 0.5).

# %%
usual = Optimizer(learning_rate=Constant(value=2e-4), method=Adam(b1=0.5, b2=0.999))
of_2014 = dataclasses.replace(
    r3gan,
    objective=dataclasses.replace(
        game,
        generator=dataclasses.replace(game.generator, optimizer=usual),
        discriminator=dataclasses.replace(game.discriminator, optimizer=usual),
        loss=NonSaturating(),
        penalties=(),
    ),
    batch_size=r3gan.batch_size // game.batch_parts,  # G's update needs no real points of its own
)
_, old_reports, old_seen = play(Program.of(of_2014), LOOKS)

# %%
names = {"R3GAN's game": seen, "the game of 2014": old_seen}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained", width_ratios=(1, 1, 1.25, 1.25))
for ax, (name, looks) in zip(axes, names.items(), strict=False):
    ax.plot(*source.centres().T, "+", color="0.5", ms=9, mew=0.8)
    ax.plot(*looks[STEPS]["samples"].T, ".", color="#1f3a93", ms=1.5)
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal", title=name)
for (name, looks), colour in zip(names.items(), ("#1f3a93", "#d35400"), strict=True):
    axes[2].plot(list(looks), [look["found"].covered for look in looks.values()], ".-", color=colour, label=name)
    axes[3].plot(list(looks), [look["found"].high_quality for look in looks.values()], ".-", color=colour, label=name)
axes[2].set(title="Gaussians reached", xlabel="step", ylabel="modes of 25", ylim=(0, 26))
axes[3].set(title="samples of high quality", xlabel="step", ylabel="share", ylim=(0, 1))
for ax in axes[2:]:
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
plt.show()

# %%
lines = [
    "| game | modes of 25 | high quality | std within modes, of the data's | KL of the modes, nats |",
    "|" + "---|" * 5,
]
for name, looks in names.items():
    found = looks[STEPS]["found"]
    spread = "no mode reached" if found.std_ratio is None else f"{found.std_ratio:.2f}"
    kl = fidelity.kl_to_uniform(found.counts)
    lines.append(f"| {name} | {found.covered} | {found.high_quality:.3f} | {spread} | {kl:.3f} |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# Grey crosses are the centres of the data. A mode counts as reached if one of the 2,500 samples lies within three
# standard deviations of its centre; KL says how unevenly the samples share the modes, 0 for evenly. One seed is an
# example, not a measurement: `benchmarks/gan_or_diffusion.py` repeats this with several.
#
# ## A walk through the noise
#
# G is a continuous map of the plane of noise into the plane of the data. The data are islands, the noise is not, so G
# has to tear it: each island gets a region, and the borders between regions are stretched over the sea. On the left is
# the noise, coloured by where it lies; on the right the same colours at the places that G sends them to. The black
# line is a straight walk through the noise, in even steps.

# %%
AXIS = np.linspace(-2.2, 2.2, 110, dtype=np.float32)
noise = np.stack(np.meshgrid(AXIS, AXIS), -1).reshape(-1, 2)
walk = np.stack([np.linspace(-2.2, 2.2, 400), np.full(400, 0.35)], 1).astype(np.float32)
send = program.map(lambda state, z, keys: program.objective.generate(state, z, keys, {}))
keys = numbered(jax.random.key(0), jnp.arange(len(noise)))
sent, walked = (np.asarray(send(state, z, keys[: len(z)])) for z in (noise, walk))
shade = (noise - noise.min()) / np.ptp(noise)
colours = np.stack([shade[:, 0], 0.35 + 0 * shade[:, 0], shade[:, 1]], 1)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
left.imshow(colours.reshape(len(AXIS), len(AXIS), 3), origin="lower", extent=(-2.2, 2.2, -2.2, 2.2))
left.plot(*walk.T, "k", lw=1.5)
left.set(title="noise z", xlabel="z₁", ylabel="z₂", aspect="equal")
right.scatter(*sent.T, c=colours, s=5, lw=0)
right.plot(*walked.T, "k.-", lw=0.6, ms=3)
right.set(title="G(z)", xlabel="x", ylabel="y", xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
plt.show()
distance = np.linalg.norm(walked[:, None] - source.centres()[None], axis=-1).min(1)
share = (distance <= 3 * source.std).mean()
Markdown(f"Of the even steps of this walk, {share:.0%} end in a Gaussian; the others are on the way between two.")

# %% [markdown]
# ## Handwritten digits
#
# The same game with images: `configs/gan/digits_dcgan.py`, the convolutional nets of 2015 with the rules of 2014, which
# a CPU plays fast. Since these rules judge each image alone, D's output is a probability of its own.

# %%
DIGIT_STEPS = 1600
digits = Program.of(dataclasses.replace(load("gan/digits_dcgan"), steps=DIGIT_STEPS))
image = jnp.zeros((1, 8, 8, 1))
nets = digits.objective
diagram.draw(
    {
        "G: noise → an image": diagram.blocks(nets.generator.module, *blank_inputs(nets.generator.module)),
        "D: an image → a logit": diagram.blocks(nets.discriminator.module, image, {}),
    }
)

# %%
MOMENTS = (10, 100, 400, DIGIT_STEPS)
digit_state, moments = digits.init(), {}
for step, batch in enumerate(digits.batches(), 1):
    digit_state, _ = digits.step(digit_state, batch)
    if step in MOMENTS:
        moments[step] = draw(digits, digit_state, range(20))

fig, axes = plt.subplots(1, len(MOMENTS), figsize=(11, 2.6), layout="constrained")
for ax, (step, samples) in zip(axes, moments.items(), strict=True):
    ax.imshow(sheet.samples(samples, None, (), columns=5))
    ax.set(xticks=[], yticks=[], title=f"step {step:,}")
fig.suptitle("The same 20 rows of noise at four moments of the training")
plt.show()

# %% [markdown]
# A path between two rows of noise is a path between two digits. Each row below starts at one sample and ends at
# another; sample i is a function of the seed and of i, so both ends can be named.

# %%
ROWS, COLUMNS = 4, 12
first = np.repeat(np.arange(ROWS), COLUMNS)
shares = np.tile(np.linspace(0, 1, COLUMNS, dtype=np.float32), ROWS)
between = draw(digits, digit_state, first, towards=(first + ROWS, shares))
fig, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
ax.imshow(sheet.samples(between, None, (), columns=COLUMNS))
ax.set(xticks=[], yticks=[], title="from one sample to another through the noise", xlabel="share of the way, 0 to 1")
plt.show()

# %% [markdown]
# What does D know? It is shown test digits that it has never seen, G's samples, and two things that it was never
# trained on: uniform noise, and test digits with their pixels in random order. Dashed lines are means, dotted ones a
# half: no opinion. Mind the scale; a good pupil leaves its teacher unsure. On the right, which digits the samples
# are, read by the classifier that comes with jaxgen: a generator that has collapsed leaves some of them out.

# %%
test = digits.experiment.test.source.open()
real = np.stack([test[i]["image"] for i in range(len(test))]).astype(np.float32) / 127.5 - 1
labels = np.array([test[i]["label"] for i in range(len(test))])
fake = draw(digits, digit_state, range(1000, 1000 + len(real)))
rng = np.random.default_rng(0)
shuffled = rng.permuted(real.reshape(len(real), -1), axis=1).reshape(real.shape)
uniform = rng.uniform(-1, 1, real.shape).astype(np.float32)
judge = digits.map(lambda state, x: logits(nets.discriminator, state.nets["discriminator"], x, {}))
kinds = {"test digits": real, "samples": fake, "uniform noise": uniform, "shuffled pixels": shuffled}
verdicts = {name: 1 / (1 + np.exp(-np.asarray(judge(digit_state, x)))) for name, x in kinds.items()}
read = np.asarray(digits.map(DigitsCnn().classifier())(fake)).argmax(1)

low, high = (extreme(np.concatenate(list(verdicts.values()))) for extreme in (np.min, np.max))
fig, axes = plt.subplots(1, 5, figsize=(13, 2.9), layout="constrained", width_ratios=(1, 1, 1, 1, 1.5))
for ax, (name, p), colour in zip(axes, verdicts.items(), (REAL, FAKE, "0.5", "0.3"), strict=False):
    ax.hist(p, np.linspace(low, high, 31), color=colour)
    ax.axvline(p.mean(), color="k", ls="--", lw=1)
    ax.set(title=f"{name}: mean {p.mean():.2f}", xlabel="D's probability of being real")
    ax.axvline(0.5, color="k", ls=":", lw=1)
axes[0].set_ylabel(f"images of {len(real)}")
for offset, (name, ids) in zip((-0.2, 0.2), {"test digits": labels, "samples": read}.items(), strict=True):
    colour = REAL if name == "test digits" else FAKE
    axes[4].bar(np.arange(10) + offset, np.bincount(ids, minlength=10), 0.4, color=colour, label=name)
axes[4].set(title="which digits", xlabel="class", ylabel="images", xticks=range(10))
axes[4].legend(fontsize=8, loc="upper center", ncols=2)
axes[4].set_ylim(0, 1.25 * axes[4].get_ylim()[1])
plt.show()
Markdown(
    f"D tells {(verdicts['test digits'] > 0.5).mean():.0%} of the test digits and "
    f"{(verdicts['samples'] < 0.5).mean():.0%} of the samples right. It has only ever learned the border between the "
    "digits and what G makes of them: what it says of noise is whatever that border happens to leave there. A "
    "discriminator is a teacher for one pupil, not a detector of digits."
)

# %% [markdown]
# ## What became of it
#
# The idea outlived the first rules. A discriminator is a loss that nobody had to write down, and it can be added to any
# other: to that of a net that translates one kind of image into another, that makes a small image large, or that turns
# a spectrogram into music. For making images out of noise there is another way, which needs no opponent. The next
# notebook takes it, and ends with the two of them on the same data.
