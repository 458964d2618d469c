"""Prompts on the command line: where they come from, what the run's tokenizers know of them, and their token ids."""

import argparse
import dataclasses
import difflib
import pathlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from jaxgen.commands.output import Parser, note, shown
from jaxgen.data import identity
from jaxgen.data.batches import transformed
from jaxgen.data.tokenizers import Listed, Tokenize, Tokenizer
from jaxgen.errors import UserError
from jaxgen.runs.restore import Restored
from jaxgen.sampling import Asked

NAMED = 3  # unknown words that an error names with near matches


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What samples are asked for in words."""

    texts: tuple[str, ...] = ()
    """For the samples in turn; () where none is given."""
    negative: str | None = None

    def of(self, numbers: np.ndarray) -> list[str]:
        """Return the prompt of each sample number."""
        return [self.texts[k % len(self.texts)] for k in numbers]


def add_options(parser: Parser) -> None:
    """Add the options that say what samples show."""
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT",
        help="what a sample shows; several --prompt are for the samples in turn; default: the test captions in turn",
    )  # fmt: skip
    parser.add_argument("--prompts", type=pathlib.Path, metavar="FILE", help="a text file with a prompt in each line")
    parser.add_argument("--negative", metavar="TEXT", help="what samples do not show: guidance leads away from it")


def given(args: argparse.Namespace) -> Prompts:
    """Read the options. Raises UserError for a file without a prompt, or that is no text."""
    texts = list(args.prompt)
    if args.prompts is not None:
        name = shown(args.prompts)
        try:
            lines = args.prompts.read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"cannot read --prompts {name}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"--prompts {name} is no text in UTF-8; save it as such, a prompt in each line") from error
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise UserError(f"--prompts {name} is empty; write a prompt in each line")
        texts += found
    if args.negative is not None and not args.negative.strip():
        raise UserError("--negative is empty; say what samples do not show, or drop it")
    return Prompts(tuple(texts), args.negative)


def tokenizers(run: Restored) -> dict[str, Tokenizer]:
    """Return the tokenizers of the run's text encoders, by the name of the token ids that they make; {} without text.

    Raises UserError where the test transforms lack one, or its words are others than when the run was trained.
    """
    made = {t.name: t.tokenizer for t in run.experiment.test.transforms if isinstance(t, Tokenize)}
    names = [name for name in run.program.generative.conditions() if name.startswith("tokens")]
    if made and (lacking := [name for name in names if name not in made]):
        raise UserError(f"the run's test transforms have no Tokenize(name={lacking[0]!r}), which would read a prompt")
    if made:
        identity.check_words(run.program.data, run.experiment.train.transforms)
    return {name: made[name] for name in names if name in made}


def check(run: Restored, prompts: Prompts, shows: str | None = None) -> None:
    """Raise UserError for texts that the run cannot be asked for, `shows` among them; note where one is cut."""
    texts = [("--prompt", text) for text in dict.fromkeys(prompts.texts)]
    texts += [(name, text) for name, text in (("--negative", prompts.negative), ("--shows", shows)) if text is not None]
    if not texts:
        return
    known = tokenizers(run)
    if not known:
        classes = "label" in run.program.generative.conditions()
        other = "ask for a class with --label" if classes else f"drop {texts[0][0]}"
        raise UserError(f"this run's net takes no text: {other}")
    for option, text in texts:
        for tokenizer in known.values():
            _check_words(option, text, tokenizer)
    for option, text in texts:
        for name, tokenizer in known.items():
            _check_length(option, text, tokenizer, f" of {name!r}" if len(known) > 1 else "")


def _check_words(option: str, text: str, tokenizer: Tokenizer) -> None:
    """Raise UserError for words that a tokenizer does not know."""
    unknown = tokenizer.unknown(text)
    if not unknown:
        return
    words = tokenizer.words() if isinstance(tokenizer, Listed) else ()
    told = [_told(word, words) for word in unknown[:NAMED]]
    more = f", and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    raise UserError(f"{option} {text!r}: the run has never read {', '.join(told)}{more}")


def _told(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, words, 3)
    return f"{word!r} (perhaps you meant {' or '.join(near)})" if near else repr(word)


def _check_length(option: str, text: str, tokenizer: Tokenizer, which: str) -> None:
    """Note what is left out of a text that is too long; raise UserError where nothing is left."""
    rest = tokenizer.cut(text)
    if not rest:
        return
    whole = unicodedata.normalize("NFC", text)
    kept = whole[: len(whole) - len(rest)].strip()
    if not kept:
        raise UserError(f"{option} {text!r} is one word of more than the {tokenizer.length} tokens that the run reads")
    note(f"note: {option} is longer than the {tokenizer.length} tokens{which}: kept {kept!r}, cut {rest!r}")


def tokens(run: Restored, texts: Sequence[str], form: str = "{}") -> Asked:
    """Return the token ids i32[n length] of a text for each sample, by the names of the arrays in this form."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    rows = [places[text] for text in texts]
    return {
        form.format(name): np.stack([tokenizer.encode(text) for text in places])[rows]
        for name, tokenizer in tokenizers(run).items()
    }


def captions(run: Restored, numbers: np.ndarray) -> list[str]:
    """Return the captions of the test examples that samples of these numbers are made for; [] where there are none."""
    examples, transforms = run.experiment.test.source.open(), run.experiment.test.transforms
    places = (numbers % len(examples)).tolist()
    found = {i: transformed(examples[i], transforms, np.random.default_rng(i)).get("caption") for i in set(places)}
    return [] if any(text is None for text in found.values()) else [str(found[i]) for i in places]
