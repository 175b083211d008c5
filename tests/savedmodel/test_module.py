import dataclasses
import re
import shutil

import pytest

from pipeline.core.errors import ModuleError
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.module import Module, SignatureInfo, TensorInfo, read_module

IMAGES = TensorInfo("images", "float32", (None, 32, 32, 3))
VECTORS = TensorInfo("default", "float32", (None, 8))
SIGNATURE = SignatureInfo({"images": IMAGES}, {"default": VECTORS})
DIGEST = "0" * 64


class TestRead:
    def test_a_tf2_module(self, tiny_module):
        path, digest = str(tiny_module), module_digest(tiny_module)
        found = Module(path, path, digest, "tf2", (("serve",),), {"serving_default": SIGNATURE}, None)
        assert read_module(path) == found
        assert read_module(path, handle="m", sha256=DIGEST) == dataclasses.replace(found, handle="m", sha256=DIGEST)

    def test_a_tf1_hub_module(self, tiny_tf1_module):
        info = read_module(str(tiny_tf1_module))
        assert info.format == "tf1_hub"
        assert info.tag_sets == ((),)
        assert info.signatures == {"default": SIGNATURE, "image_feature_vector": SIGNATURE}
        assert info.image_size == (32, 32)

    def test_no_module(self, tmp_path):
        message = f"{tmp_path} is not a module: saved_model.pb cannot be read: No such file or directory"
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            read_module(str(tmp_path))

    def test_a_damaged_module(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
        message = f"{tmp_path} is not a module: its saved_model.pb is damaged; fetch it again"
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            read_module(str(tmp_path))

    def test_an_empty_module(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"")
        message = f"{tmp_path} has no graph with tags ['serve']; its graphs have the tags none"
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            read_module(str(tmp_path))

    def test_a_hub_module_without_its_mark(self, tiny_tf1_module, tmp_path):
        copy = shutil.copytree(tiny_tf1_module, tmp_path / "copy")
        (copy / "tfhub_module.pb").unlink()
        with pytest.raises(ModuleError, match=r"has no graph with tags \['serve'\]; its graphs have the tags \[\]$"):
            read_module(str(copy))

    def test_a_mark_on_another_module(self, tiny_module, tiny_tf1_module, tmp_path):
        copy = shutil.copytree(tiny_module, tmp_path / "copy")
        shutil.copy(tiny_tf1_module / "tfhub_module.pb", copy)
        with pytest.raises(ModuleError, match=r"has no graph with tags \[\]; its graphs have the tags \[serve\]$"):
            read_module(str(copy))
