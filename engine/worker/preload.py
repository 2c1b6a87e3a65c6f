"""What the fork server loads before it forks workers: the heavy modules, and nothing that touches a GPU."""

from lorafile.engine.quiet import quiet_libraries
from lorafile.environment import gpus

quiet_libraries()

import torch  # noqa: E402, F401
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationMixin  # noqa: E402, F401

if not gpus():  # peft imports bitsandbytes, which opens CUDA at once; a process that has done so cannot be forked
    import peft  # noqa: F401

import lorafile.engine.worker.main  # noqa: E402, F401
