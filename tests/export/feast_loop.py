"""Run in the environment of Feast: materializes a feature repository again and again, then prints what is online.

Usage: feast_loop.py REPOSITORY STOP_FILE KEYS_FILE VECTORS_FILE
"""

import sys
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

repository, stop, keys_file, vectors_file = map(Path, sys.argv[1:])
store = FeatureStore(repository)
rounds, is_last = 0, False
while not is_last:
    is_last = stop.exists()  # the last round begins after the last export
    try:
        store.materialize_incremental(datetime.fromisoformat((repository / "end_time.txt").read_text().strip()))
        rounds += 1
    except FileNotFoundError:  # an export was published between listing and reading
        is_last = False
keys = pq.read_table(keys_file)["key"].to_pylist()
found = store.get_online_features(["embeddings:embedding"], [{"key": key} for key in keys]).to_dict()
times = pq.read_table(repository / "rows", columns=["key", "event_timestamp"]).to_pandas()
later = pd.DataFrame({"key": times["key"], "event_timestamp": times["event_timestamp"] + timedelta(seconds=1)})
earlier = pd.DataFrame({"key": times["key"], "event_timestamp": times["event_timestamp"] - timedelta(seconds=1)})
joined = [
    store.get_historical_features(frame, ["embeddings:embedding"]).to_df().set_index("key")["embedding"].reindex(keys)
    for frame in (later, earlier)
]
columns = {"key": keys, "online": found["embedding"], "later": list(joined[0])}
columns["earlier"] = [item if hasattr(item, "__len__") else None for item in joined[1]]
pq.write_table(pa.table(columns), vectors_file)
sys.stdout.write(f"{rounds}\n")
