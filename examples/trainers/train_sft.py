"""TRL's SFTTrainer, on exactly the tokens that Lorafile prepared."""

from datasets import Dataset
from lora_trainer import REQUEST, Recorder, adapter_config, arguments, base_model, finish, rows
from transformers import AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

names = ("input_ids", "completion_mask")
data = Dataset.from_list([{name: row[name] for name in names} for row in rows("train")])
options = {"completion_only_loss": True, "max_length": None, "packing": False} | REQUEST["options"]
trainer = SFTTrainer(
    model=base_model(),
    args=SFTConfig(**arguments(), **options),
    train_dataset=data,
    processing_class=AutoTokenizer.from_pretrained(REQUEST["model"]["path"]),
    peft_config=adapter_config(),
    callbacks=[Recorder()],
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(REQUEST["checkpoint"]))
finish(trainer)
