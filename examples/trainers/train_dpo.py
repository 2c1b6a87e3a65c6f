"""TRL's DPOTrainer on preference pairs of the study's own; the reference is the base without the adapter."""

from datasets import Dataset
from lora_trainer import REQUEST, Recorder, adapter_config, arguments, base_model, finish, rows
from transformers import AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer

trainer = DPOTrainer(
    model=base_model(),
    args=DPOConfig(**arguments(), **REQUEST["options"]),
    train_dataset=Dataset.from_list(rows("pairs")),
    processing_class=AutoTokenizer.from_pretrained(REQUEST["model"]["path"]),
    peft_config=adapter_config(),
    callbacks=[Recorder()],
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(REQUEST["checkpoint"]))
logged = [row for row in trainer.state.log_history if "rewards/accuracies" in row][-10:]
finish(trainer, {n: sum(r[n] for r in logged) / len(logged) for n in ("rewards/accuracies", "rewards/margins")})
