"""What labelling imports, for a fork server: each process that it forks has it already."""

import datasets  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import drsow_plugin.annotate.annotator
import drsow_plugin.models.pool
import drsow_plugin.scoring.drsow  # noqa: F401
