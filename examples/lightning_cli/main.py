"""A prediction job that a YAML file describes, with two outputs of each sample, on two ranks.

Run it with

    python examples/lightning_cli/main.py predict --config examples/lightning_cli/predict.yaml

Whatever ends it, the same command goes on with what is missing. Every setting can be given on the command line, too:

    ... predict --config predict.yaml --writer.directory elsewhere --trainer.devices 1 --model.threshold 0.2
    ... predict --help
"""

from data import Patches
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from model import Edges

from lighter_async import FileWriter


class Job(LightningCLI):
    """Lightning's own command line, with the writer as a section of its own beside the model and the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(FileWriter, "writer")
        # The data module leaves out what is stored in the very directory that the writer stores in.
        parser.link_arguments("writer.directory", "data.directory")


if __name__ == "__main__":
    # Lightning keeps a copy of the configuration, and would refuse to replace that of the run that is gone on with.
    Job(Edges, Patches, save_config_kwargs={"overwrite": True})
