"""The model that a config.json describes, under the published names, whatever tensors lie beside it."""

from __future__ import annotations

from hyocr_core.models.hunyuan_vl import HunYuanVL


class PublishedModel(HunYuanVL):
    """Names and shapes only: what `hyocr verify` holds a folder against."""

    def _map_names(self) -> dict[str, str]:
        """In-memory parameter name -> published tensor name, for every parameter but a tied head."""
        return {name: self.published_name(name) for name in self.parameters if name not in self.tied}
