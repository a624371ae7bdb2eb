"""How near GGUF files come to full precision: hyocr's, and those that `llama-quantize` makes of the same model.

KL and agreement are of the files' weights, unpacked by the package `gguf` and computed with in PyTorch, in fp32, along
the answers of the f16 file: all files go the same way. CER is what `llama-server` reads. Peers see the importance
matrix of the same pages. Files stay in --work, and are made anew when they are missing.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from hyocr_plugin_gguf.opened import Opened
from hyocr_plugin_gguf.tensors import source_names
from safetensors.torch import save_file

from hyocr_core import evaluate, quantize

OWN: dict[str, dict[str, Any]] = {
    "f16": {"type": "f16"},
    "q8_0": {"type": "q8_0"},
    "q4_0": {"type": "q4_0"},
    "q4_0 nearest": {"type": "q4_0", "codes": "nearest"},
    "q4_1": {"type": "q4_1"},
    "q4_k_m": {"type": "q4_k_m"},
}
PEERS = {
    "llama-quantize q8_0": ("Q8_0", False),
    "llama-quantize q4_0": ("Q4_0", False),
    "llama-quantize q4_0, imatrix": ("Q4_0", True),
    "llama-quantize q4_k_m, imatrix": ("Q4_K_M", True),
}
STARTS_IN = 60


@dataclass(frozen=True)
class Measured:
    """bytes: of the decoder's file. kl: nats per token. agreement, cer: fractions; cer is None without a server."""

    name: str
    bytes: int
    kl: float | None
    agreement: float | None
    cer: float | None


def made(model: Path, name: str, calib: str, lines: int, work: Path) -> Path:
    """The decoder's GGUF file of one of OWN."""
    folder = work / name.replace(" ", "-")
    if not folder.is_dir():
        print("quantize", name, flush=True)
        quantize(model=str(model), output=folder, method="gguf", options=OWN[name], calib=calib, num_samples=lines)
    return folder / f"model-{OWN[name]['type']}.gguf"


def made_by_peer(tool: Path, name: str, work: Path) -> Path:
    """The same of one of PEERS, from the f16 file."""
    kind, weighted = PEERS[name]
    path = work / "peers" / f"{name.replace(' ', '-').replace(',', '')}.gguf"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        matrix = ["--imatrix", str(work / "q4_0" / "imatrix.gguf")] if weighted else []
        command = [str(tool), *matrix, str(work / "f16" / "model-f16.gguf"), str(path), kind, "1"]
        subprocess.run(command, check=True, capture_output=True)
    return path


def unpacked(path: Path, model: Path, folder: Path) -> Path:
    """The model with the values that a decoder's GGUF file holds, as a checkpoint in float32."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    opened = Opened(model)
    state = {stored: opened.read(name).float() for name, (_, stored) in opened.places.items()}
    names = source_names(opened, vision=False)
    for tensor in GGUFReader(path).tensors:
        stored = opened.places[names[tensor.name]][1]
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        state[stored] = values.float().reshape(state[stored].shape)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")
    return folder


@contextmanager
def served(tool: Path, model: Path, vision: Path) -> Iterator[str]:
    """The URL of a llama-server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(tool), "-m", str(model), "--mmproj", str(vision), "--port", str(port), "-np", "1", "-c", "4096"]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(10 * STARTS_IN):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5)  # noqa: S310 (a server of our own)
                    break
                except urllib.error.URLError:
                    time.sleep(0.1)
            yield f"{url}/v1"
        finally:
            process.terminate()


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--calib", required=True, help="Pages to calibrate on.")
@click.option("--data", required=True, help="Held-out pages with transcripts.")
@click.option("--lines", default=256, help="Pages of a calibration.")
@click.option("--pages", default=256, help="Held-out pages.")
@click.option("--llama", type=click.Path(path_type=Path, exists=True), required=True, help="llama.cpp's programs.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("out/gguf"))
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the numbers there.")
def main(
    model: Path, calib: str, data: str, lines: int, pages: int, llama: Path, work: Path, target: Path | None
) -> None:
    """Measure all files of MODEL."""
    files = {name: made(model, name, calib, lines, work) for name in OWN}
    files |= {name: made_by_peer(llama / "llama-quantize", name, work) for name in PEERS}
    baseline = unpacked(files["f16"], model, work / "baseline")
    server, vision = llama / "llama-server", work / "f16" / "mmproj-f16.gguf"
    found = []
    for name, path in files.items():
        candidate = unpacked(path, model, work / "candidate")
        settings: dict[str, Any] = {"data": data, "num_samples": pages}
        compared = evaluate(model=str(candidate), baseline=str(baseline), **settings).comparison
        cer = None
        if server.is_file():
            with served(server, path, vision) as url:
                cer = evaluate(model=str(model), backend=url, **settings).model.cer
        kl, agreement = (None, None) if compared is None else (compared.kl, compared.agreement)
        found.append(Measured(name, path.stat().st_size, kl, agreement, cer))
        print(found[-1], flush=True)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
