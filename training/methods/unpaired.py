"""a -> b and b -> a from two sets without partners; what ties an output to its input is a choice."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from training.architectures import ADAPTED_TO, Translator
from training.augment import jitter
from training.compute import Compute
from training.config import RecipeError, Section, choice
from training.datasets import Data, Domains
from training.datasets.base import DIRECTIONS, Direction, as_floats, partners
from training.ema import EMA
from training.graph import Graph
from training.health import OVERPOWERED, Symptom
from training.media import Examples, medium_of, some
from training.methods.base import AbstractMethod, Draw, Progress
from training.methods.critic import Critic, TranslationConfig
from training.pool import Pool
from training.ties import TIES, AbstractTie, Bridge

PREVIEW_ROWS = 8
PREVIEW_ITEMS = 16
EXAMPLES = 64

SYMPTOMS: dict[str, Symptom] = {
    "discriminator overpowers generator": OVERPOWERED,
    "the tie does not hold": Symptom(
        scalar="loss/cycle",
        is_ill=lambda distance: distance > 0.5,
        advice="there and back again misses by {value:.2f} (both ways together, of at most 4). Try: a larger "
        "tie.weight, a lower generator learning rate, or a wider generator.",
    ),
}


class UnpairedConfig(TranslationConfig):
    """The tables and keys of a recipe whose method is `unpaired`."""

    tie: Annotated[AbstractTie, choice(TIES, "tie")]
    pool_size: int = Field(default=50, ge=0)
    """Past outputs that each discriminator is shown beside new ones; 0 shows the new ones alone."""


class Unpaired(AbstractMethod):
    """Two generators, each against a discriminator of the domain that it goes to, and a tie between them.

    Reference: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017,
    arXiv:1703.10593.
    """

    Config: ClassVar[type[Section]] = UnpairedConfig
    Data: ClassVar[type[Data]] = Domains
    directions: ClassVar[tuple[str, ...]] = DIRECTIONS
    symptoms: ClassVar[dict[str, Symptom]] = SYMPTOMS
    advice_on_nan: ClassVar[str] = "Try: a lower learning rate, a larger r1 weight, or precision = 'fp32'."

    def __init__(
        self, config: UnpairedConfig, data: Domains, held_out: Callable[[], Domains], compute: Compute
    ) -> None:
        self.config = config
        self.compute = compute
        self.medium = medium_of(data.a)
        self.generators: dict[Direction, Translator] = {}
        self.averages: dict[Direction, EMA[Translator]] = {}
        self.critics: dict[Direction, Critic] = {}
        self.pools: dict[Direction, Pool] = {}
        self.networks: dict[str, nn.Module] = {}
        self.optimizers = {}
        for way in DIRECTIONS:
            sources, targets, _, _ = data.sides(way)
            source, target = tuple(sources.shape[1:]), tuple(targets.shape[1:])
            generator = config.generator.build(source, target)
            generator.adapt(*(as_floats(some(items, ADAPTED_TO)) for items in (sources, targets)))
            generator = compute.place(generator)
            if generator.z_dim:
                raise RecipeError(
                    f"generator.z_dim is {generator.z_dim}; a generator without pairs takes no z: set it to 0"
                )
            discriminator = compute.place(config.discriminator.build(target))
            self.generators[way] = generator
            self.averages[way] = EMA(generator, config.ema)
            self.critics[way] = Critic(discriminator, config, compute)
            self.pools[way] = Pool(config.pool_size)
            self.networks[f"generator_{way}"] = generator
            self.networks[f"generator_{way}_ema"] = self.averages[way].average
            self.networks[f"discriminator_{way}"] = discriminator
            self.optimizers[f"generator_{way}"] = config.generator_optimizer.build(generator)
            self.optimizers[f"discriminator_{way}"] = config.discriminator_optimizer.build(discriminator)
        shown = held_out()
        self.examples: dict[Direction, Examples] = {way: _examples(*shown.sides(way)) for way in DIRECTIONS}

    def step(self, draw: Draw, progress: Progress) -> dict[str, Tensor]:
        (a,), (b,) = (jitter(self.config.jitter, items) for items in draw())
        outputs: dict[Direction, Tensor] = {"ab": self._generate("ab", a), "ba": self._generate("ba", b)}
        targets: dict[Direction, Tensor] = {"ab": b, "ba": a}
        scalars: dict[str, Tensor] = {}
        for way in DIRECTIONS:
            name = f"discriminator_{way}"
            self.config.discriminator_optimizer.anneal(self.optimizers[name], progress.fraction)
            fake = self.pools[way].exchange(outputs[way].detach())
            loss, seen = self.critics[way].discriminator_loss(
                targets[way], fake, step=progress.step, fraction=progress.fraction
            )
            self._update(name, loss)
            scalars = {key: value + scalars.get(key, 0) for key, value in seen.items()}
        scalars = {key: value / len(DIRECTIONS) for key, value in scalars.items()}
        scalars |= self._train_generators(a, b, outputs, targets, progress)
        for way in DIRECTIONS:
            self.averages[way].update(self.generators[way], nimg=progress.nimg, batch_size=progress.batch_size)
        return {name: value.detach() for name, value in scalars.items()}

    def _train_generators(
        self,
        a: Tensor,
        b: Tensor,
        outputs: dict[Direction, Tensor],
        targets: dict[Direction, Tensor],
        progress: Progress,
    ) -> dict[str, Tensor]:
        scalars = {"loss/generator": self._fooling("ab", outputs, targets) + self._fooling("ba", outputs, targets)}
        loss = self.config.adversarial_weight * scalars["loss/generator"]
        bridge = Bridge(
            a=a,
            b=b,
            a_to_b=outputs["ab"],
            b_to_a=outputs["ba"],
            to_b=lambda items: self._generate("ab", items),
            to_a=lambda items: self._generate("ba", items),
        )
        for name, (weight, value) in self.config.tie.losses(bridge).items():
            scalars[name] = value
            loss = loss + weight * value
        optimizers = [self.optimizers[f"generator_{way}"] for way in DIRECTIONS]
        for optimizer in optimizers:
            self.config.generator_optimizer.anneal(optimizer, progress.fraction)
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return scalars

    def _fooling(self, way: Direction, outputs: dict[Direction, Tensor], targets: dict[Direction, Tensor]) -> Tensor:
        return self.critics[way].generator_loss(targets[way], outputs[way])

    def _generate(self, way: Direction, items: Tensor) -> Tensor:
        with self.compute.autocast():
            return self.generators[way](items, None).float()

    @torch.no_grad()
    def translate(self, items: Tensor, way: Direction) -> Tensor:
        """The averaged generator's outputs for items [N, C, ...] in [-1, 1], in fp32 on the CPU."""
        return self.averages[way].average(items.to(self.compute.torch_device), None).cpu()

    def preview(self) -> NDArray[np.uint8]:
        """Held-out source, output and, where it is known, true partner; a to b in the upper half, b to a below."""
        halves = []
        for way in DIRECTIONS:
            sources = some(self.examples[way].sources, PREVIEW_ITEMS)
            targets = self.examples[way].targets
            columns = [sources, self.translate(sources, way)]
            halves.append([*columns, *([] if targets is None else [some(targets, PREVIEW_ITEMS)])])
        shown = min(len(columns[0]) for columns in halves)
        both = [torch.cat([upper[:shown], lower[:shown]]) for upper, lower in zip(*halves, strict=True)]
        return self.medium.show(both, PREVIEW_ROWS)

    def graph(self, direction: str | None = None) -> Graph:
        way = next(way for way in DIRECTIONS if way == direction)
        return self.medium.graph(self.averages[way].average, self.examples[way])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "pools": {way: pool.items for way, pool in self.pools.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for way, pool in self.pools.items():
            pool.items = state["pools"][way].to(self.compute.torch_device)


def _examples(sources: Tensor, others: Tensor, keys: tuple[str, ...], other_keys: tuple[str, ...]) -> Examples:
    """Some sources with the items of the other domain that have the same keys; without them if no key is shared."""
    here, there = partners(keys, other_keys)
    if not len(here):
        return Examples(as_floats(some(sources, EXAMPLES)), None)
    return Examples(as_floats(sources[some(here, EXAMPLES)]), as_floats(others[some(there, EXAMPLES)]))
