"""Tar shards: the contract of targets, what a crash leaves, several ranks, and what is read back."""

import os
from pathlib import Path

import pytest

from lighter_async import TarShards
from lighter_async.targets.shards.keys import NO_SUFFIX, name_of_key, split_member
from lighter_async.targets.shards.walk import samples_in
from lighter_async.testing import TargetContract


def members_of(folder):
    """The bytes of each member of all shards, sealed or not; of two that have one name the one written last."""
    found = {}
    paths = list(Path(folder).glob("shard-*.tar*")) if Path(folder).is_dir() else []
    for path in sorted(paths, key=lambda one: one.stat().st_mtime_ns):
        with open(path, "rb") as file:
            for sample in samples_in(file.fileno()):
                for member in sample.members:
                    found[member.name] = os.pread(file.fileno(), member.size, member.offset)
    return found


def file_of(member):
    """The sample's name with its suffix."""
    key, field = split_member(member)
    return name_of_key(key) if f".{field}" == NO_SUFFIX else f"{name_of_key(key)}.{field}"


class OnShards(TargetContract):
    refused_names = ("x" * 300, f"{'f' * 300}/x", "/".join(["deep"] * 2000), "." * 100)
    options = {}  # noqa: RUF012

    @pytest.fixture
    def make_target(self, tmp_path):
        return lambda **options: TarShards(tmp_path / "out", **{**self.options, **options})

    def read(self, target):
        return {file_of(member): data for member, data in members_of(target.location).items()}


class TestShards(OnShards):
    """Large ones."""


class TestShardsThatOutliveALossOfPower(OnShards):
    """Synced ones."""

    options = {"durability": "fsync"}  # noqa: RUF012


class TestSmallShards(OnShards):
    """Of three samples each."""

    options = {"shard_samples": 3}  # noqa: RUF012


class TestShardsOfFewBytes(OnShards):
    """Which most samples are larger than, and that keep what there is."""

    options = {"shard_bytes": 5000, "if_exists": "skip"}  # noqa: RUF012
