"""What is particular to HunyuanOCR: names, blocks, groups of linears that share an input, and the way to block 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from transformers import HunYuanVLConfig, HunYuanVLForConditionalGeneration
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLRotaryEmbedding
from transformers.vision_utils import get_vision_cu_seqlens

from hyocr_core.checkpoint.source import TensorSource
from hyocr_core.contract.backend import Forward
from hyocr_core.contract.types import Batch, Block, Kind, LayerSpec
from hyocr_core.errors import CheckpointError, one_line
from hyocr_core.models.spelling import BLOCKS, EMBEDDING, NORM, VISION, memory_name, published_name
from hyocr_core.models.wiring import DECODER, MERGER, Link, Place, smoothing_of
from hyocr_core.models.wiring import VISION as VISION_LAYER
from hyocr_core.pages.older_transformers import one_tensor, recompose_in_rotary
from hyocr_core.runtimes.forward import set_forward

recompose_in_rotary()

ARCHITECTURE = "HunYuanVLForConditionalGeneration"

ModelInputs: TypeAlias = Mapping[str, Tensor]
"""One prompt as the processor gives it: input_ids (1, T), mm_token_type_ids (1, T), pixel_values, image_grid_thw."""


@dataclass(frozen=True)
class Embedded:
    """Prompts at the input of a tower's first block.

    hidden_states: (B, tokens, hidden_size). places: where the tokens stand; position ids (axes, B, tokens) in the
    decoder, the images' grids (images, 3) in the vision tower.
    """

    hidden_states: Tensor
    places: Tensor


@torch.no_grad()
def embed_prompts(
    model: Any, prompts: Sequence[ModelInputs], device: torch.device, features: Tensor | None = None
) -> Embedded:
    """Put the vision tower's features in the place of the image tokens, for prompts of one length and image grid.

    model: Transformers' HunYuanVLModel with the embedding in memory, and the vision tower unless the features (image
    tokens, hidden_size) are given.
    """
    inputs = {name: torch.cat([prompt[name] for prompt in prompts]) for name in prompts[0]}
    token_ids = inputs["input_ids"].to(device)
    if features is None:
        # The grid stays: the model asks for its numbers in every layer, and the host would have to wait for them.
        pixels = inputs["pixel_values"].to(device)
        image = model.get_image_features(pixels, inputs["image_grid_thw"], return_dict=True)
        features = one_tensor(image.pooler_output)
    _check_tokens(model, inputs["input_ids"], features)
    hidden_states = model.get_input_embeddings()(token_ids)
    mask = model.get_placeholder_mask(token_ids, inputs_embeds=hidden_states, image_features=features)
    hidden_states = hidden_states.masked_scatter(mask, features.to(hidden_states.dtype))
    # From one prompt for all: given a batch, Transformers counts the images on from prompt to prompt, so that the
    # second page would be read as the second image of its prompt.
    first = prompts[0]
    positions, _ = model.get_rope_index(first["input_ids"], first["mm_token_type_ids"], first["image_grid_thw"])
    return Embedded(hidden_states, positions.to(device).expand(-1, len(prompts), -1))


def _check_tokens(model: Any, token_ids: Tensor, features: Tensor) -> None:
    """Raise CheckpointError for tokens of a tokenizer that is not this model's."""
    known, largest = model.get_input_embeddings().num_embeddings, int(token_ids.max())
    if largest >= known:
        raise CheckpointError(f"tokenizer: writes token {largest}, and the model has {known}")
    images = int((token_ids == model.config.image_token_id).sum())
    if images != len(features):
        raise CheckpointError(
            f"tokenizer: writes {images} image tokens for a page that the model sees as {len(features)}; config.json "
            f"has image_token_id {model.config.image_token_id}"
        )


class HunYuanVL:
    """A HunyuanOCR checkpoint, materialized part by part.

    The modules are Transformers' own, but for what `forward` overrides, on the meta device until a part is loaded, so
    that memory holds only the part at work. Weights keep the checkpoint's dtype (bf16 in the published model).
    """

    def __init__(self, reader: TensorSource, device: torch.device, forward: Forward = "reference") -> None:
        _check_architecture(reader)
        self.forward = forward
        self.reader = reader
        self.device = device
        self.config = _config(reader)
        self.dtype: torch.dtype = self.config.dtype or torch.bfloat16
        with _making(reader):
            self.skeleton = _skeleton(reader, self.config, self.dtype)
        set_forward(self.skeleton, forward)
        self._disk_names = self._map_names()
        with _making(reader):
            self._rotary = HunYuanVLRotaryEmbedding(self.config.text_config).to(device)
        set_forward(self._rotary, forward)

    def _map_names(self) -> dict[str, str]:
        """In-memory parameter name -> on-disk tensor name; refuses a checkpoint that lacks or adds tensors."""
        expected, computed = self.parameters, set(self.computed)
        names: dict[str, str] = {}
        for disk_name, info in self.reader.tensors.items():
            name = memory_name(disk_name)
            if disk_name in computed:
                continue
            if name not in expected:
                raise CheckpointError(f"{info.shard}: {disk_name} is no tensor of {ARCHITECTURE}")
            if name in names:
                raise CheckpointError(f"{info.shard}: {disk_name} and {names[name]} hold the same tensor")
            if tuple(info.shape) != expected[name]:
                shapes = f"shape {list(info.shape)}, config.json asks for {list(expected[name])}"
                raise CheckpointError(f"{info.shard}: {disk_name} has {shapes}")
            names[name] = disk_name
        missing = sorted(set(expected) - set(names) - self.ties.keys())
        if missing:
            first = published_name(missing[0])
            raise CheckpointError(f"{self.reader.folder}: {len(missing)} tensors are missing, the first is {first}")
        return names

    @cached_property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """In-memory name -> shape of every parameter, a tied head included."""
        return {name: tuple(value.shape) for name, value in self.skeleton.state_dict().items()}

    @cached_property
    def computed(self) -> tuple[str, ...]:
        """On-disk names of what is no weight: buffers that every runtime computes itself, such as `inv_freq`."""
        buffers = {name.rpartition(".")[2] for name, _ in self.skeleton.named_buffers() if name not in self.parameters}
        return tuple(name for name in self.reader.tensors if name.rpartition(".")[2] in buffers)

    @cached_property
    def ties(self) -> dict[str, str]:
        """In-memory name of a parameter that a checkpoint may leave out, because it is another's too -> that other."""
        return dict(self.skeleton._tied_weights_keys or {}) if self.config.tie_word_embeddings else {}

    @cached_property
    def tied_on_disk(self) -> dict[str, str]:
        """The same by on-disk names, of those that are there all the same."""
        names = self._disk_names
        return {names[name]: names[other] for name, other in self.ties.items() if name in names}

    @cached_property
    def decoder_blocks(self) -> tuple[Place, ...]:
        """The decoder, in order of execution."""
        count = int(self.config.text_config.num_hidden_layers)
        return tuple(Place(f"block-{index:05d}", f"{BLOCKS}.{index}", DECODER) for index in range(count))

    @cached_property
    def vision_blocks(self) -> tuple[Place, ...]:
        """The vision tower after its patch embedding, in order of execution; the merger is the last."""
        count = int(self.config.vision_config.num_hidden_layers)
        layers = [Place(f"vision-{index:05d}", f"{VISION}.layers.{index}", VISION_LAYER) for index in range(count)]
        return (*layers, Place(f"vision-{count:05d}", f"{VISION}.patch_merger", MERGER))

    @property
    def max_tokens(self) -> int:
        return int(self.config.text_config.max_position_embeddings)

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Every linear but a tied head: on-disk module name -> (out_features, in_features)."""
        shapes = {}
        for name, module in self.skeleton.named_modules():
            if isinstance(module, nn.Linear) and f"{name}.weight" in self._disk_names:
                shapes[self.disk_module(name)] = (module.out_features, module.in_features)
        return shapes

    def disk_module(self, name: str) -> str:
        return self._disk_names[f"{name}.weight"].removesuffix(".weight")

    @cached_property
    def memory_names(self) -> dict[str, str]:
        """On-disk module name -> in-memory module name, for every linear, and for the head even when it is tied."""
        modules = dict(self.skeleton.named_modules())
        names = {
            disk.removesuffix(".weight"): name.removesuffix(".weight")
            for name, disk in self._disk_names.items()
            if isinstance(modules.get(name.removesuffix(".weight")), nn.Linear)
        }
        return names | {"lm_head": "lm_head"}

    @property
    def modules(self) -> dict[str, nn.Linear]:
        """The linears of the skeleton by on-disk name."""
        memory = self.memory_names
        return {name: cast("nn.Linear", self.skeleton.get_submodule(memory[name])) for name in self.linears}

    def groups(self, place: Place) -> tuple[tuple[str, ...], ...]:
        """On-disk names of a block's linears, those that share an input together."""
        return tuple(tuple(self.disk_module(f"{place.path}.{part}") for part in group) for group in place.wiring.groups)

    def linear_paths(self, place: Place) -> dict[str, str]:
        """On-disk name of a block's linear -> its in-memory path in the block."""
        paths = (path for group in place.wiring.groups for path in group)
        return {self.disk_module(f"{place.path}.{path}"): path for path in paths}

    def block_name(self, place: Place) -> str:
        """On-disk name of a block: what the names of its tensors begin with."""
        parts = zip(*(name.split(".") for name in self.parameter_names(place).values()), strict=False)
        return ".".join(part[0] for part in takewhile(lambda part: len(set(part)) == 1, parts))

    def parameter_names(self, place: Place) -> dict[str, str]:
        """Name of a parameter inside the block -> on-disk tensor name."""
        return self.tensors_below(place.path)

    def tensors_below(self, path: str) -> dict[str, str]:
        """Name of a parameter inside the module `path` (in memory) -> on-disk tensor name."""
        prefix = f"{path}."
        return {n.removeprefix(prefix): disk for n, disk in self._disk_names.items() if n.startswith(prefix)}

    @contextmanager
    def _materialized(self, *prefixes: str) -> Iterator[None]:
        """Load the tensors below these in-memory prefixes; give the memory back at the end."""
        loaded = [(prefix, name) for prefix in prefixes for name in self._disk_names if name.startswith(f"{prefix}.")]
        tensors = self.reader.read([self._disk_names[name] for _, name in loaded])
        for prefix in prefixes:
            state = {
                name.removeprefix(f"{prefix}."): tensors.pop(self._disk_names[name]).to(self.device, self.dtype)
                for owner, name in loaded
                if owner == prefix
            }
            self.skeleton.get_submodule(prefix).load_state_dict(state, assign=True)
        try:
            yield
        finally:
            for prefix in prefixes:
                self.skeleton.get_submodule(prefix).to("meta")

    @contextmanager
    def block(self, place: Place, index: int, quantize: Iterable[str]) -> Iterator[Block]:
        """One block in memory; `quantize` holds the on-disk names of the linears to quantize."""
        with self._materialized(place.path):
            yield self._wired(place, index, set(quantize))

    def _wired(self, place: Place, index: int, wanted: set[str]) -> Block:
        module, wiring = self.skeleton.get_submodule(place.path), place.wiring
        names = {
            name.removesuffix(".weight"): disk.removesuffix(".weight")
            for name, disk in self.parameter_names(place).items()
        }
        linears = {names[path]: module.get_submodule(path) for group in wiring.groups for path in group}
        groups = (tuple(name for name in group if name in wanted) for group in self.groups(place))
        return Block(
            index=index,
            name=self.block_name(place),
            module=module,
            layers={name: cast("nn.Linear", linear) for name, linear in linears.items() if name in wanted},
            groups=tuple(group for group in groups if group),
            run=partial(wiring.run, module),
            smoothing=tuple(smoothing_of(module, wiring, names, wanted)),
            cached={names[path]: module.get_submodule(cached) for path, cached in wiring.cached.items()},
        )

    def smoothed_norms(self, place: Place) -> list[str]:
        """On-disk names of the norm weights that scales can be folded into."""
        names = self.parameter_names(place)
        linears = {path for group in place.wiring.groups for path in group}
        return [names[f"{link.source}.weight"] for link in place.wiring.links if link.source not in linears]

    def smoothed_linears(self, place: Place) -> list[tuple[str, tuple[str, ...]]]:
        """On-disk names of the linears that scales can be folded into, each with those of the linears it feeds."""
        linears = {path for group in place.wiring.groups for path in group}
        return [
            (self.disk_module(f"{place.path}.{link.source}"), self._targets(place, link))
            for link in place.wiring.links
            if link.source in linears
        ]

    def _targets(self, place: Place, link: Link) -> tuple[str, ...]:
        return tuple(self.disk_module(f"{place.path}.{target}") for target in link.targets)

    @contextmanager
    def front(self, *, vision: bool = True) -> Iterator[None]:
        """What `embed` needs in memory: the token embedding and, unless features are given, the vision tower."""
        with self._materialized(*([VISION] if vision else []), EMBEDDING):
            yield

    @contextmanager
    def head(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """What makes logits of the decoder's output (1, tokens, hidden_size), computed in fp32."""
        own = "lm_head" if "lm_head.weight" in self._disk_names else EMBEDDING
        with self._materialized(NORM, own):
            norm = self.skeleton.get_submodule(NORM)
            weight = self.skeleton.get_submodule(own).get_parameter("weight").float()
            yield lambda states: nn.functional.linear(norm.float()(states), weight)

    def layer_specs(self) -> dict[str, LayerSpec]:
        """Every linear, the embedding and a head of its own, by on-disk name, in the checkpoint's order."""
        embedding = self.disk_module(EMBEDDING)
        shapes = self.linears | {embedding: self.parameters[f"{EMBEDDING}.weight"]}
        kinds: dict[str, Kind] = {embedding: "embedding", "lm_head": "head"}
        dtypes = {name: self.reader.tensors[f"{name}.weight"].dtype for name in shapes}
        return {
            name: LayerSpec(name, (shape[0], shape[1]), dtypes[name], kinds.get(name, "linear"))
            for name, shape in shapes.items()
        }

    @contextmanager
    def patch_embedding(self) -> Iterator[None]:
        """What `embed_patches` needs in memory."""
        with self._materialized(f"{VISION}.embeddings"):
            yield

    def embed(self, inputs: ModelInputs, features: Tensor | None = None) -> Embedded:
        """One sample at the input of the decoder, inside `front()`; features: see `embed_prompts`."""
        return embed_prompts(self.skeleton.model, [inputs], self.device, features)

    @torch.no_grad()
    def embed_patches(self, inputs: ModelInputs) -> Embedded:
        """One sample's images at the input of the vision tower's first block, inside `patch_embedding()`."""
        grid = inputs["image_grid_thw"]
        embeddings = self.skeleton.model.vision_tower.embeddings
        return Embedded(embeddings(inputs["pixel_values"].to(self.device, self.dtype), grid.tolist()), grid)

    def batch(self, name: str, embedded: Embedded) -> Batch:
        """The sample as a decoder block takes it, on the model's device."""
        hidden_states = embedded.hidden_states.to(self.device, non_blocking=True)
        cos, sin = self._rotary(hidden_states, embedded.places.to(self.device, non_blocking=True))
        return Batch(name, hidden_states, {"position_embeddings": (cos, sin)})

    def vision_batch(self, name: str, embedded: Embedded) -> Batch:
        """The sample's images as a block of the vision tower takes them, on the model's device."""
        grid = embedded.places
        context = {"cu_seqlens": get_vision_cu_seqlens(grid), "grid": grid}
        return Batch(name, embedded.hidden_states.to(self.device, non_blocking=True), context)

    def full(self, state: Mapping[str, Tensor]) -> HunYuanVLForConditionalGeneration:
        """The whole model, its parameters replaced by `state` (on-disk tensor names, all of them)."""
        tensors = {name: state[disk].to(self.device, self.dtype) for name, disk in self._disk_names.items()}
        self.skeleton.load_state_dict(tensors, strict=False, assign=True)
        self.skeleton.tie_weights()
        self.skeleton.model.language_model.rotary_emb = self._rotary
        return self.skeleton


def _check_architecture(reader: TensorSource) -> None:
    named = reader.config.get("architectures")
    found = named if isinstance(named, list) and named else [reader.config.get("model_type", "unknown")]
    if ARCHITECTURE not in found and reader.config.get("model_type") != "hunyuan_vl":
        raise CheckpointError(f"{reader.folder / 'config.json'}: architecture {found[0]} is not {ARCHITECTURE}")


def _config(reader: TensorSource) -> Any:
    raw = {key: value for key, value in reader.config.items() if key != "quantization_config"}
    try:
        return HunYuanVLConfig.from_dict(raw)
    except Exception as error:
        raise CheckpointError(f"{reader.folder / 'config.json'}: Transformers refuses it: {one_line(error)}") from error


def _skeleton(reader: TensorSource, config: Any, dtype: torch.dtype) -> HunYuanVLForConditionalGeneration:
    """The modules without weights."""
    layers = max(config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers)
    if layers > len(reader.tensors):
        raise ValueError(f"it asks for {layers} layers, and there are {len(reader.tensors)} tensors")
    with torch.device("meta"):
        made = HunYuanVLForConditionalGeneration._from_config(  # type: ignore[no-untyped-call]
            config, dtype=dtype, attn_implementation="sdpa"
        )
    return cast("HunYuanVLForConditionalGeneration", made.eval())


@contextmanager
def _making(reader: TensorSource) -> Iterator[None]:
    """Turn whatever making a model of config.json raises into a CheckpointError."""
    try:
        yield
    except Exception as error:  # Transformers checks some values only where it uses them
        place = reader.folder / "config.json"
        raise CheckpointError(f"{place}: no model can be made of it: {one_line(error, named=True)}") from error


class PublishedModel(HunYuanVL):
    """Names and shapes only: what `hyocr verify` holds a folder against."""

    def _map_names(self) -> dict[str, str]:
        """In-memory parameter name -> published tensor name, for every parameter but a tied head."""
        return {name: published_name(name) for name in self.parameters if name not in self.ties}
