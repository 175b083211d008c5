import json

import numpy as np
import pytest

from pipeline.commands.verify import main
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord
from tests.datasets import embed, make_photos, read_rows
from tests.inputs.archives import make_tar


@pytest.fixture
def records(tmp_path):
    examples = [make_example({"image/encoded": jpeg_bytes(seed=seed), "id": f"k{seed}"}) for seed in range(6)]
    (tmp_path / "a.tfrecord").write_bytes(make_tfrecord(examples))
    return tmp_path / "a.tfrecord"


def verify(capsys, *args):
    code = main([*map(str, args)])
    captured = capsys.readouterr()
    return code, (captured.out + captured.err).splitlines()[-2:]


def test_image_files_that_are_embedded_again_have_the_same_bits(photos, out, tiny_module, capsys):
    embed(photos, out, tiny_module, normalize="l2", engine="openvino")
    code, (line,) = verify(capsys, out, "--recompute=1", f"--input={photos}")
    assert code == 0
    assert line == (
        "recomputed 5 of 5 rows: 5 identical, 0 within 0.0001, 0 different, 0 missing; largest difference 0.0e+00"
    )


def test_files_that_are_not_in_the_sample_are_not_read(photos, out, tiny_module, capsys):
    embed(photos, out, tiny_module)
    code, (line,) = verify(capsys, out, "--recompute=0.5", f"--input={photos}", "--seed=3")
    assert code == 0
    sampled = int(line.split()[1])
    assert 0 < sampled < 5


@pytest.mark.parametrize("key_feature", [None, "id"])
def test_records_are_found_by_their_keys(records, out, tiny_module, key_feature, capsys):
    embed(records, out, tiny_module, key_feature=key_feature, output_format="parquet")
    code, (line,) = verify(capsys, out, "--recompute=1", f"--input={records}")
    assert (code, line[:47]) == (0, "recomputed 6 of 6 rows: 6 identical, 0 within 0")


def test_samples_of_a_tar_are_found_by_their_keys(out, tiny_module, tmp_path, capsys):
    archive = tmp_path / "shard.tar"
    archive.write_bytes(make_tar((f"{index}.jpg", jpeg_bytes(seed=index)) for index in range(3)))
    embed(archive, out, tiny_module)
    code, (line,) = verify(capsys, out, "--recompute=1", f"--input={archive}")
    assert (code, line[:38]) == (0, "recomputed 3 of 3 rows: 3 identical, 0")


@pytest.mark.parametrize("flags", [{"icc": "srgb"}, {"preprocess": "clip"}], ids=["icc", "transform"])
def test_the_preprocessing_is_that_of_the_data_set(photos, out, tiny_module, flags, capsys):
    embed(photos, out, tiny_module, **flags)
    assert verify(capsys, out, "--recompute=1", f"--input={photos}")[0] == 0


def test_another_preprocessing_is_refused(photos, out, tiny_module, capsys):
    embed(photos, out, tiny_module)
    assert main([str(out), "--recompute=1", f"--input={photos}", "--preprocess=clip"]) == 2
    assert "holds vectors of another kind" in capsys.readouterr().err


def test_other_images_under_the_same_names_are_different(photos, out, tiny_module, capsys, tmp_path):
    embed(photos, out, tiny_module)
    make_photos(tmp_path / "others", 4)
    (tmp_path / "others" / "001.jpg").write_bytes(jpeg_bytes(seed=99))
    (tmp_path / "others" / "002.jpg").write_bytes(b"no image")
    code = main([str(out), "--recompute=1", f"--input={tmp_path / 'others'}", f"--module={tiny_module}"])
    *problems, last = capsys.readouterr().out.splitlines()
    assert code == 1
    assert problems[0].startswith("problem: 001.jpg: the vector differs by ")
    assert problems[1].startswith("problem: 002.jpg: fails now: not_an_image: ")
    assert problems[2].startswith("problem: 004.jpg: none of the inputs has this key")
    assert last.startswith("recomputed 5 of 5 rows: 2 identical, 0 within 0.0001, 1 different, 2 missing; largest")


def test_another_module_is_refused(photos, out, tiny_module, tiny_tf1_module, capsys):
    embed(photos, out, tiny_module)
    code, lines = verify(
        capsys, out, "--recompute=1", f"--input={photos}", f"--module={tiny_tf1_module}", "--signature=default"
    )
    assert code == 2
    assert lines[-1].startswith(f"error: --output={out} holds vectors of another kind (module_sha256: ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--recompute=1"], r"error: no input: --input=FILE, DIRECTORY or GLOB is required"),
        (["--recompute=2", "--input=x"], r"error: --recompute=2 is not a share of the rows; it must be above 0"),
        (["--recompute=1", "--runner=X"], r"error: --recompute embeds in this process; leave --runner=X out"),
    ],
)
def test_what_cannot_be_recomputed(photos, out, tiny_module, args, message, capsys):
    embed(photos, out, tiny_module)
    code, lines = verify(capsys, out, *args)
    assert code == 2
    assert lines[-1].startswith(message)


def test_vectors_of_a_custom_engine_are_refused(photos, out, tiny_module, capsys):
    embed(photos, out, tiny_module)
    spec = json.loads((out / "spec.json").read_text())
    (out / "spec.json").write_text(json.dumps({**spec, "engine": "mine"}))
    code, lines = verify(capsys, out, "--recompute=1", f"--input={photos}")
    assert (code, "has the vectors of the custom engine mine" in lines[-1]) == (2, True)


def test_the_rows_are_left_as_they_are(photos, out, tiny_module, capsys):
    embed(photos, out, tiny_module)
    before = read_rows(out)
    verify(capsys, out, "--recompute=1", f"--input={photos}")
    assert {key: row["embedding"] for key, row in read_rows(out).items()} == {
        key: row["embedding"] for key, row in before.items()
    }
    assert np.isfinite(before[b"000.jpg"]["embedding"]).all()
