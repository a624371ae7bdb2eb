"""Load the processor of a checkpoint: tokenizer, image processor and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.model_files import check_files
from hyocr_core.errors import CheckpointError, one_line
from hyocr_core.pages.chat_template import check_template
from hyocr_core.pages.older_transformers import use_pil_image_processor
from hyocr_core.pages.pixels import lower_pixels
from hyocr_core.pages.rendering import RENDERER

_NEEDED = (
    ("a tokenizer", ("tokenizer.json", "tokenizer_config.json")),
    ("an image processor", ("preprocessor_config.json", "processor_config.json")),
)


def load_processor(folder: Path, max_pixels: int | None = None) -> Any:
    """Load the Transformers processor of a checkpoint folder, with the image processor made of Pillow and NumPy.

    No code from the folder is run, nothing is downloaded. max_pixels: lowers what a page may have.
    Raises CheckpointError if the folder lacks a tokenizer, an image processor or a chat template, if they cannot be
    loaded, or if the template does not write a page's question and image, once each; ConfigError for pixels outside of
    what the processor takes.
    """
    check_files(folder)
    for what, files in _NEEDED:
        if not any((folder / name).is_file() for name in files):
            raise CheckpointError(f"{folder}: holds no {what.split(maxsplit=1)[1]} ({' or '.join(files)})")
    from transformers import AutoProcessor, ProcessorMixin

    use_pil_image_processor()
    RENDERER.start()
    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, trust_remote_code=False, local_files_only=True, backend="pil"
        )
    except Exception as error:  # Transformers and tokenizers raise anything on damaged files, bare Exception included
        raise CheckpointError(f"{folder}: its processor cannot be loaded: {one_line(error)}") from error
    if not isinstance(processor, ProcessorMixin) or not hasattr(processor, "image_token"):
        raise CheckpointError(f"{folder}: its processor takes no images ({type(processor).__name__})")
    if not processor.chat_template:
        raise CheckpointError(f"{folder}: holds no chat template (chat_template.jinja)")
    check_template(processor)
    if max_pixels is not None:
        lower_pixels(processor.image_processor, max_pixels)
    return processor
