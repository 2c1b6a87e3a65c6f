"""Every optimizer of the table: it is transformers' own, its state is what the row says, and a run repeats and resumes.

What is compared with: the optimizers that transformers' Trainer makes, torch's Muon, and PEFT's functions.
"""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, Engine, train  # noqa: E402
from pack_runs_fixture import Runs, assert_agree  # noqa: E402
from peft import IA3Config, LoraConfig, VeraConfig, get_peft_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments  # noqa: E402

from lorafile.engine.request import Stopped  # noqa: E402
from lorafile.engine.stacking.compatible import training_class  # noqa: E402
from lorafile.engine.training import checkpoint  # noqa: E402
from lorafile.engine.training.checkpoint import ResumableModel  # noqa: E402
from lorafile.engine.training.optimizer import OptimizerStep, make_optimizer  # noqa: E402
from lorafile.errors import NodeError  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.specs.optimizers import (  # noqa: E402
    ALIASES,
    DEFAULT_OPTIMIZER,
    OPTIMIZERS,
    SMALLEST_8BIT,
    OptimizerName,
    optimizer_rows,
)
from lorafile.specs.tables.train import TrainTable  # noqa: E402

RATES = {"lion_32bit": 1e-3, "lion_8bit": 1e-3, "sgd": 0.5}
WIDE = {"method": "lora", "r": 128, "lora_alpha": 128, "target_modules": ["q_proj", "down_proj"]}  # 128 x 32 = 4,096
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT's own


@pytest.fixture(params=list(OPTIMIZERS))
def name(request: pytest.FixtureRequest) -> str:
    row = OPTIMIZERS[request.param]
    if not row.installed:
        pytest.skip(f"{row.package} is not installed")
    return str(request.param)


def options(name: str) -> dict[str, Any]:
    kind = "cosine" if "lr_scheduler_type" in OPTIMIZERS[name].reads else "linear"
    rate = RATES.get(name, 1e-2)
    more = {"weight_decay": 0.1, "warmup_steps": 2, "lr_scheduler_type": kind, "max_steps": 9}
    return {"optim": name, "learning_rate": rate, "adapter": WIDE, **more}


def settings(name: str, **more: Any) -> dict[str, Any]:
    return TrainTable(**{"optim": name, "learning_rate": 1e-2, "weight_decay": 0.1, **more}).model_dump()


def llama(dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=80, **sizes)).to(dtype)


def adapted(**more: Any) -> Any:
    torch.manual_seed(0)
    config = {"r": 64, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **more}
    return get_peft_model(llama(), LoraConfig(task_type="CAUSAL_LM", **config))


def draw_gradients(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)


def weights(model: Any) -> list[Any]:
    return [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]


def test_the_names_are_those_of_the_table() -> None:
    assert list(get_args(OptimizerName)) == list(OPTIMIZERS)
    assert TrainTable().optim == DEFAULT_OPTIMIZER
    assert set(ALIASES.values()) <= set(OPTIMIZERS)
    assert not set(ALIASES) & set(OPTIMIZERS)
    assert [row.name for row in optimizer_rows(gpu=False)] == list(OPTIMIZERS)
    paged = {row.name for row in optimizer_rows(gpu=False) if "not paged here" in row.capabilities}
    assert paged == {"paged_adamw_8bit", "paged_adamw_32bit"}
    assert not any("not paged here" in row.capabilities for row in optimizer_rows(gpu=True))


def test_a_run_repeats_and_goes_on_to_the_bit(engine: Engine, name: str) -> None:
    prepared = engine.prepare()

    def stop(progress: dict[str, Any]) -> None:
        if progress.get("step") == 5:
            raise Stopped

    whole, expected = train(engine, prepared, "whole", **options(name))
    assert whole.outcome == "done", whole.message
    losses = [row["loss"] for row in read_lines(expected.parent / "curve.jsonl.gz")]
    assert losses[-1] < losses[0]
    again, repeated = train(engine, prepared, "again", **options(name))
    stopped, _ = train(engine, prepared, "stopped", stop, running="parts", **options(name))
    assert stopped.outcome == "interrupted", stopped.message
    check_stored_state(engine.root / "parts-running", name)
    done, found = train(engine, prepared, "rest", running="parts", **options(name))
    assert again.outcome == done.outcome == "done", done.message
    assert done.figures["resumed_from"] == [5]
    for file in ("adapter_model.safetensors", "curve.jsonl.gz"):
        assert (repeated.parent / file).read_bytes() == (expected.parent / file).read_bytes(), file
        assert (found.parent / file).read_bytes() == (expected.parent / file).read_bytes(), file


def check_stored_state(running: Path, name: str) -> None:
    """Check that a checkpoint is JSON and safetensors, and that large states have the bits that the row says."""
    assert {file.suffix for file in running.iterdir()} <= {".json", ".jsonl", ".safetensors"}
    tensors = load_file(next(running.glob("step-*.safetensors")))
    states = [t for n, t in tensors.items() if n.startswith("optimizer.") and t.numel() >= SMALLEST_8BIT]
    eight = {True} if OPTIMIZERS[name].bits == 8 else {False} if states else set()
    assert {state.dtype == torch.uint8 for state in states} == eight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_checkpoint_of_full_fine_tuning_goes_on_to_the_bit(tmp_path: Path, name: str, dtype: Any) -> None:
    """States that are in another type than their parameter are kept in their own."""
    if name == "lorafa":
        pytest.skip("it trains LoRA alone")
    models = [llama(dtype), llama(dtype)]
    first, second = (ResumableModel(model, OptimizerStep(model, settings(name), 9, CPU)) for model in models)
    for seed in range(4):
        draw_gradients(models[0], seed)
        first.optimizer_step.step()
        if seed == 1:
            checkpoint.save(tmp_path, first, {"key": "key", "step": 2, "reads": "reads"})
    checkpoint.load(tmp_path, second, "key", "reads")
    for seed in (2, 3):
        draw_gradients(models[1], seed)
        second.optimizer_step.step()
    assert all(map(torch.equal, weights(models[0]), weights(models[1])))


def trainer_optimizer(model: Any, tmp_path: Path, name: str, **more: Any) -> Any:
    """Return what transformers' Trainer makes of the same settings."""
    options = {"learning_rate": 1e-2, "weight_decay": 0.1, "report_to": [], "use_cpu": True, **more}
    theirs = "adamw_torch_fused" if name == DEFAULT_OPTIMIZER else name
    trainer = Trainer(model, TrainingArguments(str(tmp_path), optim=theirs, **options))
    return trainer.create_optimizer()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_it_steps_as_the_one_that_transformers_makes(tmp_path: Path, name: str, dora: bool) -> None:
    if name in ("lorafa", "muon"):
        pytest.skip("transformers has none")
    models = [adapted(use_dora=dora), adapted(use_dora=dora)]
    optimizers = [make_optimizer(models[0], settings(name)), trainer_optimizer(models[1], tmp_path, name)]
    for optimizer in optimizers:
        if name == "schedule_free_adamw":
            optimizer.train()
    for seed in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            draw_gradients(model, seed)
            optimizer.step()
    assert all(map(torch.equal, weights(models[0]), weights(models[1])))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: adapted(use_dora=True), id="DoRA"),
        pytest.param(lambda: adapted(modules_to_save=["norm", "lm_head"]), id="saved modules"),
        pytest.param(
            lambda: get_peft_model(
                llama(), IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
            ),
            id="IA³",
        ),
        pytest.param(lambda: get_peft_model(llama(), VeraConfig(r=4, target_modules=["q_proj"])), id="VeRA"),
        pytest.param(llama, id="full"),
    ],
)
def test_what_decays_is_what_transformers_decays(tmp_path: Path, model: Any) -> None:
    made = model()
    named = {id(parameter): name for name, parameter in made.named_parameters()}

    def decayed(optimizer: Any) -> dict[str, float]:
        groups = optimizer.param_groups
        return {named[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}

    ours = decayed(make_optimizer(made, settings(DEFAULT_OPTIMIZER)))
    assert ours == decayed(trainer_optimizer(made, tmp_path, DEFAULT_OPTIMIZER))
    assert set(ours.values()) <= {0.0, 0.1}


def test_a_state_takes_as_many_bytes_as_the_row_says(name: str) -> None:
    model = adapted()
    optimizer = OptimizerStep(model, settings(name), 9, CPU)
    draw_gradients(model, 0)
    optimizer.step()
    state = optimizer.optimizer_state()["state"]
    maps = ("qmap1", "qmap2", "step", "RMS")  # one for all parameters, or a number
    held = [t for values in state.values() for word, t in values.items() if word not in maps]
    told = sum(OPTIMIZERS[name].state_bytes(p.shape, 4) for p in model.parameters() if p.requires_grad)
    assert sum(tensor.numel() * tensor.element_size() for tensor in held) == told


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    model = adapted(use_dora=True, modules_to_save=["embed_tokens"])
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(model, settings("muon"))
    expected = {n: torch.nn.Parameter(p.clone()) for n, p in before.items()}
    matrices = [p for n, p in expected.items() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in expected.items() if p.ndim != 2 or "embed" in n]
    assert matrices
    assert {p.ndim for p in others} == {1, 2}
    apart = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1, fused=True),
    ]
    for seed in range(3):
        draw_gradients(model, seed)
        for n, p in model.named_parameters():
            if p.requires_grad:
                expected[n].grad = p.grad.clone()
        optimizer.step()
        for part in apart:
            part.step()
    for n, p in model.named_parameters():
        if p.requires_grad:
            assert torch.equal(p, expected[n]), n


def test_lorafa_leaves_a_as_it_was(engine: Engine) -> None:
    from peft.optimizers import create_lorafa_optimizer

    models = [adapted(lora_alpha=32), adapted(lora_alpha=32)]
    own = create_lorafa_optimizer(models[1], r=64, lora_alpha=32, lr=1e-2, weight_decay=0.1)
    ours = OptimizerStep(models[0], settings("lorafa", lr_scheduler_type="constant", max_grad_norm=0.0), 9, CPU)
    for seed in range(3):
        for model in models:
            draw_gradients(model, seed)
        ours.step()
        own.step()
    assert all(map(torch.equal, weights(models[0]), weights(models[1])))
    prepared = engine.prepare()
    runs = [train(engine, prepared, f"{steps}", **options("lorafa") | {"max_steps": steps}) for steps in (1, 9)]
    short, long = (load_file(file) for _, file in runs)
    assert all(torch.equal(short[n], long[n]) is ("lora_A" in n) for n in short)
    matrices = [t.numel() for n, t in short.items() if "lora_B" in n]
    assert runs[0][0].figures["trainable_parameters"] == sum(matrices)


def test_embeddings_keep_a_float32_state_and_leave_nothing_to_later_runs() -> None:
    import bitsandbytes

    manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
    before = len(manager.pid2config), len(manager.module_weight_config_triple)
    model = llama()
    optimizer: Any = make_optimizer(model, settings("adamw_8bit"))
    draw_gradients(model, 0)
    optimizer.step()
    assert optimizer.state[model.model.embed_tokens.weight]["state1"].dtype == torch.float32
    assert optimizer.state[model.model.layers[0].mlp.up_proj.weight]["state1"].dtype == torch.uint8
    assert (len(manager.pid2config), len(manager.module_weight_config_triple)) == before


def test_modules_have_rates_of_their_own(engine: Engine) -> None:
    rates = {"q_proj": 1e-3, "layers.1.self_attn.q_proj": 5e-3}
    model = adapted()
    optimizer = make_optimizer(model, settings("adamw_torch", learning_rates=rates))
    found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for n, p in model.named_parameters():
        if p.requires_grad:
            first = 1e-3 if "q_proj" in n else 1e-2
            assert found[id(p)] == (5e-3 if "layers.1.self_attn.q_proj" in n else first), n
    same = dict.fromkeys(("q_proj", "down_proj"), 1e-2)
    plain, expected = train(engine, engine.prepare(), "plain")
    grouped, file = train(engine, engine.prepare(), "grouped", learning_rates=same)
    assert plain.outcome == grouped.outcome == "done", grouped.message
    assert file.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("optim", [name for name, row in OPTIMIZERS.items() if row.loraplus and row.installed])
def test_lora_plus_steps_further_with_b(optim: str) -> None:
    models = [adapted(), adapted()]
    start = weights(models[0])
    for model, ratio in zip(models, (None, 4.0), strict=True):
        step = OptimizerStep(model, settings(optim, loraplus_lr_ratio=ratio, weight_decay=0.0), 9, CPU)
        draw_gradients(model, 0)
        step.step()
    names = [n for n, p in models[0].named_parameters() if p.requires_grad]
    for n, before, plain, faster in zip(names, start, *map(weights, models), strict=True):
        moved = (faster - before).abs().sum() / (plain - before).abs().sum()
        assert float(moved) == pytest.approx(4 if "lora_B" in n else 1, rel=1e-3), n


def test_a_step_that_the_scaler_skips_is_none_of_the_schedule() -> None:
    model = adapted()
    step = OptimizerStep(model, settings(DEFAULT_OPTIMIZER, fp16=True, warmup_steps=4), 9, CPU)
    rates, before = [], weights(model)
    for number in range(4):
        step.scaler.scale(torch.zeros(1))  # as the loss is, which makes the scale
        draw_gradients(model, number)
        if number < 2:
            next(p for p in model.parameters() if p.requires_grad).grad.fill_(torch.inf)
        rates.append(step.rate)
        step.step()
        assert all(map(torch.equal, before, weights(model))) is (number < 3)  # the first rate of a warm-up is zero
    assert rates == [0.0, 0.0, 0.0, pytest.approx(0.0025)]


@pytest.mark.parametrize("optim", [name for name, row in OPTIMIZERS.items() if row.together])
def test_runs_are_trained_together_where_the_row_says_so(engine: Engine, optim: str) -> None:
    runs = Runs(engine)
    own = {"optim": optim, "learning_rate": RATES.get(optim, 1e-2), "weight_decay": 0.1}
    mix = [{**own, "adapter": {"lora_dropout": 0.2}}, {"seed": 2}, {**own, "adapter": {"r": 2}, "seed": 3}]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))


def test_others_are_trained_alone(engine: Engine) -> None:
    runs = Runs(engine)
    for optim, row in OPTIMIZERS.items():
        assert bool(training_class(runs.request({"optim": optim}).settings, "train")) is row.together, optim
    assert training_class(runs.request({"learning_rates": {"q_proj": 1e-3}}).settings, "train") == ""


def test_a_missing_package_is_one_sentence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafile.specs.optimizers.find_spec", lambda package: None)
    with pytest.raises(NodeError, match=r'train.optim = "schedule_free_adamw" needs schedulefree, which is not .*opti'):
        make_optimizer(adapted(), settings("schedule_free_adamw"))
    done, _ = train(engine, engine.prepare(), "missing", optim="schedule_free_adamw", adapter=LORA)
    assert done.outcome == "failed"
    assert "pip install" in done.message


def test_a_checkpoint_of_other_groups_is_not_taken(tmp_path: Path) -> None:
    """As one of an earlier version is, which had other groups."""
    models = [adapted(use_dora=True), adapted(use_dora=True)]
    first, second = (ResumableModel(m, OptimizerStep(m, settings("adamw_torch"), 9, CPU)) for m in models)
    checkpoint.save(tmp_path, first, {"key": "key", "step": 2, "reads": "reads"})
    second.optimizer_step.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    with pytest.raises(checkpoint.DamagedCheckpoint, match="groups of parameters"):
        checkpoint.load(tmp_path, second, "key", "reads")


def test_what_a_checkpoint_holds_is_no_pickle(tmp_path: Path, name: str) -> None:
    model = adapted()
    run = ResumableModel(model, OptimizerStep(model, settings(name), 9, CPU))
    draw_gradients(model, 0)
    run.optimizer_step.step()
    checkpoint.save(tmp_path, run, {"key": "key", "step": 1, "reads": "reads"})
    json.loads((tmp_path / "checkpoint.json").read_text(encoding="utf-8"))
    assert load_file(next(tmp_path.glob("step-*.safetensors")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="states are paged on a CUDA GPU alone")
@pytest.mark.parametrize("optim", [name for name, row in OPTIMIZERS.items() if row.paged])
def test_large_states_are_paged_and_paged_again(tmp_path: Path, optim: str) -> None:
    device = torch.device("cuda")
    models = [adapted(r=2048).to(device), adapted(r=2048).to(device)]  # 2,048 x 64 is more than 100,000
    runs = [ResumableModel(model, OptimizerStep(model, settings(optim), 9, device)) for model in models]

    def check_paged(run: ResumableModel) -> None:
        states = [state["state1"] for state in run.optimizer_step.optimizer.state.values()]
        assert states
        assert all(state.is_paged for state in states)
        assert {state.dtype for state in states} == {torch.uint8 if OPTIMIZERS[optim].bits == 8 else torch.float32}

    draw_gradients(models[0], 0)
    runs[0].optimizer_step.step()
    check_paged(runs[0])
    checkpoint.save(tmp_path, runs[0], {"key": "key", "step": 1, "reads": "reads"})
    checkpoint.load(tmp_path, runs[1], "key", "reads")
    check_paged(runs[1])
    for run in runs:
        draw_gradients(run.model, 1)
        run.optimizer_step.step()
    assert all(map(torch.equal, weights(models[0]), weights(models[1])))
