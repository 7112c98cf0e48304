"""Writes the demo model as a folder that servers load: demo_folder.py FOLDER.

The same values as the GGUF file has, in float32, with the tokenizer and its chat template.
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from drsow_plugin.models.demo import demo_model


def main(folder: Path) -> None:
    """Write the folder, unless it is there."""
    if (folder / "model.safetensors").is_file():
        return
    file = demo_model()
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    config = loaded.config
    del config.quantization_config  # of the file; what was loaded is not quantized
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
