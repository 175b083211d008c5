"""img2dataset from a list of web addresses to tars, without vectors. It has a process for each core.

Options: `resize`, whether images are resized and encoded again, as by default; `threads`, the downloads at a time
of each process.
"""

import json
from pathlib import Path

from img2dataset import download

from benchmarks.task import Task


def run(task: Task) -> None:
    (addresses,) = task.files
    download(
        url_list=addresses,
        output_folder=task.output,
        processes_count=task.threads,
        thread_count=task.options.get("threads", 64),
        number_sample_per_shard=1000,
        disable_all_reencoding=not task.options.get("resize"),
        output_format="webdataset",
    )
    stats = [json.loads(path.read_text()) for path in Path(task.output).glob("*_stats.json")]
    missing = len(Path(addresses).read_text().split()) - sum(item["successes"] for item in stats)
    if missing:
        raise ValueError(f"{missing} images were not downloaded")
