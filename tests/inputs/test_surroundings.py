import re
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.dataset.ownership import other_dataset_in
from tests.datasets import add_wave, make_batch
from tests.inputs.finding import find, names


class TestSurroundings:
    """What other tools and other runs leave below an input."""

    @pytest.fixture
    def left(self, tmp_path):
        for name in (
            "a.jpg",
            "._a.jpg",
            "__MACOSX/._a.jpg",
            "model/saved_model.pb",
            "model/variables/variables.index",
            "model/variables/variables.data-00000-of-00001",
            "ckpt/model.ckpt-7.index",
            "ckpt/model.ckpt-7.data-00000-of-00002",
            "ckpt/model.ckpt-7.data-00001-of-00002",
            "records.data-00000-of-00001",
        ):
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"x")
        add_wave(tmp_path / "in/emb", "00000", make_batch({"a": [1, 2, 3]}))
        (tmp_path / "in/emb/mine.jpg").write_bytes(b"x")
        (tmp_path / "in/emb/embeddings/mine.jpg").write_bytes(b"x")
        return tmp_path / "in"

    def test_they_are_left_out_under_their_true_names(self, left, caplog):
        files = find(left, other_dataset_in=other_dataset_in)
        assert names(files) == ["a.jpg", "emb/embeddings/mine.jpg", "emb/mine.jpg", "records.data-00000-of-00001"]
        (message,) = caplog.messages
        parts = message.removeprefix("left out 12 files: ").split("; ")
        assert sorted(parts[:-1]) == [
            "2 hidden, by names that begin with a dot",
            f"2 of the embedding data set {left}/emb",
            "3 of TensorFlow checkpoints",
        ]
        assert parts[-1].startswith("5 of no known kind by their names (")

    def test_a_data_set_alone_is_no_input(self, left):
        text = f"left out 1 files: 1 of the embedding data set {left}/emb; name their --input_format"
        with pytest.raises(InputError, match=re.escape(text)):
            find(left / "emb/embeddings/*.tfrecord", other_dataset_in=other_dataset_in)

    def test_folders_of_something_else_are_read(self, tmp_path):
        for name in ("x/spec.json", "x/embeddings/a.jpg", "y/manifests/b.jpg"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"{}")
        assert names(find(tmp_path, other_dataset_in=other_dataset_in)) == ["x/embeddings/a.jpg", "y/manifests/b.jpg"]

    @pytest.mark.parametrize("folder", ["a[1]", "what?", "star*", "[!x]"])
    @pytest.mark.parametrize("pattern", ["*.jpg", "d/**/*.jpg", "./d*/?.jpg", "d"])
    def test_wildcard_characters_in_the_names_of_folders(self, tmp_path, monkeypatch, folder, pattern):
        for parent in (tmp_path / folder, tmp_path / "a1", tmp_path / "star1"):
            (parent / "d").mkdir(parents=True)
            for name in ("a.jpg", "d/b.jpg"):
                (parent / name).write_bytes(parent.name.encode())
        wanted = ["a.jpg"] if pattern == "*.jpg" else ["d/b.jpg"] if pattern == "./d*/?.jpg" else ["b.jpg"]
        for place in (f"{tmp_path}/{folder}/{pattern}", pattern):
            monkeypatch.chdir(tmp_path / folder)
            files = find(place)
            assert names(files) == wanted
            assert all(Path(file.path).read_bytes() == folder.encode() for file in files)
