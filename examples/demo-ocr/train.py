"""Train a reader on the CPU: deterministic, resumable, about an hour on two cores."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import torch
import torch.multiprocessing as mp
from model import build_model, save_checkpoint
from objective import Losses, aux_parameters
from optim import fresh_state
from readers import READERS, place
from safetensors.torch import load_file, save_file
from torch import Tensor
from worker import WORKERS, Recipe, Shared, work

UNUSED = ("lm_head.weight", "image_sep")  # the one is tied, the other read by no image of the architecture
REPORT_EVERY = 50


def initial(recipe: Recipe) -> Shared:
    """Random weights and a fresh optimizer."""
    model = build_model(READERS[recipe.reader], recipe.seed)
    named = {name: p.detach() for name, p in model.named_parameters() if not name.endswith(UNUSED)}
    params = {**named, **aux_parameters(READERS[recipe.reader], recipe.seed)}
    return Shared.build(params, fresh_state(params))


def weights(shared: Shared) -> dict[str, Tensor]:
    """The model's weights, without the auxiliary heads."""
    return {name: tensor for name, tensor in shared.params.items() if not name.startswith("aux.")}


def save_state(folder: Path, recipe: Recipe, shared: Shared, step: int) -> None:
    """Write the training state; the JSON goes last and names the file that belongs to it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"state-{step:06d}.safetensors"
    tensors = {f"param.{key}": tensor.clone() for key, tensor in shared.params.items()}
    save_file({**tensors, **{key: tensor.clone() for key, tensor in shared.state.items()}}, folder / name)
    record = {"step": step, "tensors": name, "recipe": asdict(recipe)}
    staged = folder / "state.json.new"
    staged.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    staged.rename(folder / "state.json")
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(folder: Path, shared: Shared) -> int:
    """Fill the shared tensors from the saved state; returns the steps done."""
    record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / record["tensors"])
    for name, tensor in shared.params.items():
        tensor.copy_(tensors[f"param.{name}"])
    for name, tensor in shared.state.items():
        tensor.copy_(tensors[name])
    return int(record["step"])


@dataclass
class Progress:
    """What worker 0 does after each step: report, save, export."""

    recipe: Recipe
    shared: Shared
    state: Path
    out: Path
    save_every: int
    end: int
    since: float = field(default_factory=time.monotonic)

    def __call__(self, step: int, found: Losses) -> None:
        """Called with the number of steps done."""
        if step % REPORT_EVERY == 0:
            values = {name: round(float(value), 4) for name, value in vars(found).items()}
            seconds = round((time.monotonic() - self.since) / REPORT_EVERY, 3)
            click.echo(json.dumps({"step": step, "s_per_step": seconds, **values}))
            self.since = time.monotonic()
        if step % self.save_every == 0 or step == self.end:
            save_state(self.state, self.recipe, self.shared, step)
            save_checkpoint(READERS[self.recipe.reader], weights(self.shared), self.out)


@click.command()
@click.option("--reader", type=click.Choice(list(READERS)), default="demo", show_default=True)
@click.option("--steps", type=int, help="Length of the run, instead of the reader's own; its last 40 % cool down.")
@click.option("--out", type=click.Path(path_type=Path), help="Checkpoint folder, instead of the reader's own.")
@click.option("--state", type=click.Path(path_type=Path), default=Path("train-state"), help="Training state folder.")
@click.option("--resume", is_flag=True, help="Continue from the training state.")
@click.option("--seed", default=7, show_default=True)
@click.option("--save-every", default=500, show_default=True, help="Steps between training states and checkpoints.")
@click.option("--stop-after", default=None, type=int, help="Stop at this step of the schedule, resumably.")
def main(
    reader: str,
    steps: int | None,
    out: Path | None,
    state: Path,
    resume: bool,
    seed: int,
    save_every: int,
    stop_after: int | None,
) -> None:
    """Train and write the checkpoint."""
    recipe = Recipe(reader, steps or READERS[reader].steps, seed=seed)
    shared = initial(recipe)
    begin = load_state(state, shared) if resume else 0
    end = recipe.steps if stop_after is None else min(recipe.steps, stop_after)
    context = mp.get_context("spawn")
    progress = Progress(recipe, shared, state, out or place("checkpoint", reader), save_every, end)
    args = (recipe, shared, context.Barrier(WORKERS), range(begin, end), progress)
    mp.spawn(work, args=args, nprocs=WORKERS)  # type: ignore[attr-defined, no-untyped-call]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
