"""The same images give the same vectors, to the last bit, however the work is spread."""

import pytest

from pipeline import RunConfig, read_embeddings, run
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord


def vectors(output):
    found = {}
    for rows in read_embeddings(str(output)):
        values = rows.column("embedding").flatten().to_numpy().reshape(rows.num_rows, -1)
        found |= {key: vector.tobytes() for key, vector in zip(rows.column("key").to_pylist(), values, strict=True)}
    return found


@pytest.mark.slow
def test_batches_threads_processes_and_formats_do_not_show(tmp_path, convolutions):
    images = [jpeg_bytes(150 + seed, 200, seed=seed) for seed in range(40)]
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "photos" / f"{number:03d}.jpg").write_bytes(image)
    examples = [
        make_example({"image/encoded": image, "id": f"{number:03d}.jpg"}) for number, image in enumerate(images)
    ]
    for index in range(3):
        (tmp_path / f"photos-{index}.tfrecord").write_bytes(make_tfrecord(examples[index::3]))
    photos = {"input": str(tmp_path / "photos")}
    records = {"input": [str(tmp_path / f"photos-{index}.tfrecord") for index in range(3)], "key_feature": "id"}
    runs = {
        "alone": {**photos, "batch_size": 1},
        "batches": {**photos, "batch_size": 64},
        "records": records,
        "threads": {**records, "direct_running_mode": "multi_threading", "direct_num_workers": 3},
        "processes": {**records, "direct_running_mode": "multi_processing", "direct_num_workers": 2},
    }
    found = {}
    for name, options in runs.items():
        config = RunConfig.from_flags(
            module=convolutions, engine="openvino", output=str(tmp_path / name), runner="DirectRunner", **options
        )
        assert run(config).embedded == len(images)
        found[name] = vectors(tmp_path / name)
    assert len(set(found["alone"].values())) == len(images)
    for name, others in found.items():
        assert others == found["alone"], name
