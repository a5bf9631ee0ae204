"""Translators side by side: the tables and strips of a page, written by a command and never by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training import samples
from training.evaluation.base import EvaluationError, Subject
from training.evaluation.perceptual import perceptual_judge
from training.evaluation.translation import (
    IDENTITY,
    expect_same_data,
    held_out,
    likeness,
    mean_l1,
    translate,
)
from training.files import written_aside
from training.run import flat

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
ROWS = 10
UNTOLD = (
    "name", "seed", "licence", "limitations", "compute.", "data.",
    "schedule.report", "schedule.preview", "schedule.save",
)  # fmt: skip
"""Keys of a recipe in which runs may differ without being different methods."""


def compare(subjects: Sequence[Subject], page: Path) -> None:
    """Write a table and a strip for each data set and direction into `page`, between its two marks, or at its end if it
    has none; the strips go into `images/` beside it.

    Raises:
        EvaluationError: if a subject does not translate, or two have the same name.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise EvaluationError(f"each run or bundle needs a name of its own; these are {', '.join(names)}")
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        if subject.task != "translate":
            raise EvaluationError(f"{subject.name} does not translate; only translators are compared")
        groups.setdefault(json.dumps([subject.recipe.resolved()["data"], subject.direction]), []).append(subject)
    images = page.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    sections = [_section(group, images) for group in groups.values()]
    text = page.read_text() if page.exists() else ""
    if BEGIN not in text or END not in text:
        text = f"{text}\n{BEGIN}\n{END}\n".lstrip()
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    with written_aside(page) as aside:
        aside.write_text("\n\n".join([f"{before}{BEGIN}", *sections, after]))


def _section(subjects: Sequence[Subject], images: Path) -> str:
    """The heading, table and strip of generators with the same data and direction."""
    expect_same_data(subjects)
    data, judge = held_out(subjects[0]), perceptual_judge()
    outputs = {subject.name: translate(subject.run, subject.latent, data.sources) for subject in subjects}
    cycles = {
        subject.name: mean_l1(translate(subject.back, None, outputs[subject.name]), data.sources)
        for subject in subjects
        if subject.back is not None
    }
    choices = {IDENTITY: "the input, handed back", **_choices(subjects)}
    lines = [
        f"| generator | particular to it | judge distance [judge@{judge.hash}] ↓ | SSIM ↑ | L1 ↓ | cycle L1 ↓ |",
        "|---|---|---|---|---|---|",
    ]
    for name, pixels in {IDENTITY: data.sources, **outputs}.items():
        like = likeness(pixels, data.targets, judge)
        cycle = f"{cycles[name]:.4f}" if name in cycles else "-"
        lines.append(
            f"| {name} | {choices[name]} | {like.judge_distance:.4f} | {like.ssim:.4f} | {like.l1:.4f} | {cycle} |"
        )
    chosen = np.unique(np.linspace(0, len(data.sources) - 1, ROWS).round().astype(int))
    columns = [pixels[chosen] for pixels in (data.sources, *outputs.values(), data.targets)]
    strip = images / f"{subjects[0].name}-compared.png"
    samples.save(samples.sheet(samples.strips(columns, ROWS)), strip)
    title = subjects[0].recipe.data.card(size=1).name
    direction = "" if subjects[0].direction is None else f" ({subjects[0].direction})"
    return "\n".join(
        [
            f"### {title}{direction}",
            "",
            f"On {len(data.sources)} held-out pictures.",
            "",
            *lines,
            "",
            f"![input, {', '.join(outputs)}, truth](images/{strip.name})",
            "",
            f"From left to right: input, {', '.join(outputs)}, truth.",
        ]
    )


def _choices(subjects: Sequence[Subject]) -> dict[str, str]:
    """What distinguishes each recipe from the others, by name."""
    recipes = {subject.name: flat(subject.recipe.resolved()) for subject in subjects}
    keys = sorted({key for recipe in recipes.values() for key in recipe if not key.startswith(UNTOLD)})
    differing = [key for key in keys if len({repr(recipe.get(key)) for recipe in recipes.values()}) > 1]
    return {
        name: ", ".join(f"`{key} = {recipe[key]}`" for key in differing if key in recipe) or "-"
        for name, recipe in recipes.items()
    }
