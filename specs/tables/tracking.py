"""The table of trackers: where a study's runs are reported to. None of it enters a key."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from lorafile.specs.values import ONE_LINE, TRACKED_PROJECT, Settings, Text

_SECRETS = ("api_key", "key", "password", "token", "username")
TrackerName = Literal["wandb", "mlflow", "tensorboard"]


class WandbTable(Settings):
    """Weights & Biases, with the names of `wandb.init`. The API key comes from `wandb login` or `WANDB_API_KEY`."""

    project: Annotated[str, Field(pattern=TRACKED_PROJECT, max_length=128)] | None = Field(
        default=None, description="The project. Unset: the study's name."
    )
    entity: Text | None = Field(default=None, description="User or team. Unset: wandb's default.")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None,
        description="`offline` writes `wandb/` next to the spec, for `wandb sync`. Unset: `WANDB_MODE`.",
    )
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[], description="Tags of every run, in addition to those of its study, sweep and method."
    )


class MlflowTable(Settings):
    """MLflow. A server's user and password come from its own environment variables."""

    tracking_uri: Annotated[str, Field(min_length=1, pattern=ONE_LINE)] | None = Field(
        default=None,
        description="A server, or a file such as `sqlite:///mlflow.db`, relative to the spec. Unset: "
        "`MLFLOW_TRACKING_URI`, or that file.",
    )
    experiment_name: Text | None = Field(default=None, description="The experiment. Unset: the study's name.")


class TensorboardTable(Settings):
    """TensorBoard: event files, in one directory per run."""

    log_dir: Text = Field(
        default="runs", description="Log directory, relative to the spec, with a subdirectory for each study."
    )


class TrackingTable(Settings):
    """Trackers that receive the study's runs. They do not affect keys, and a failing tracker does not fail a run."""

    report_to: TrackerName | list[TrackerName] | None = Field(
        default=None, description="One tracker or several. Unset: those with a table here."
    )
    wandb: WandbTable | None = Field(default=None, description="Weights & Biases.")
    mlflow: MlflowTable | None = Field(default=None, description="MLflow.")
    tensorboard: TensorboardTable | None = Field(default=None, description="TensorBoard.")

    @property
    def trackers(self) -> tuple[TrackerName, ...]:
        """Return the trackers that are reported to, each once."""
        if self.report_to is None:
            return tuple(name for name in get_args(TrackerName) if getattr(self, name) is not None)
        named = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        return tuple(dict.fromkeys(named))


def secret_refusal(path: tuple[str | int, ...]) -> str:
    """Return why a spec cannot hold what was written under `[tracking]`, or nothing."""
    if path[0] != "tracking" or path[-1] not in _SECRETS:
        return ""
    return (
        "is a secret, and a spec goes into git: wandb reads WANDB_API_KEY or the login stored by `wandb login`, and "
        "MLflow reads MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
    )
