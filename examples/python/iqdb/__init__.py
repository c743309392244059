"""A vector database in the process: iqdb.h for Python.

    import iqdb, numpy as np

    with iqdb.open("notes.db", dim=384) as db:
        db.upsert_batch(ids, vectors, payloads)        # float32 arrays, read where they lie
        hits = db.search(vector, k=10, filter=iqdb.key("year") >= 2020, payload=True)
        many = db.search_batch(queries, k=10)          # many.ids, many.scores: what the search has written

What fails is an iqdb.Error with a `code`. Calls that take time let other threads run.
"""
from .database import (Batch, Cancel, Collection, Cursor, Database, Delete, Hit, Record, Records, SearchInfo, Stats,
                       Upsert, distance, inspect, load_blob, norm, open, open_blob, open_in_memory, repair, version)
from .errors import Cancelled, Code, Damaged, Detail, Error, InvalidInput, NotFound, OutOfMemory
from .filters import Filter, Key, any_of, every, key
from .values import REMOVE, Payload, Value

__version__ = version()

__all__ = ["Batch", "Cancel", "Cancelled", "Code", "Collection", "Cursor", "Damaged", "Database", "Delete", "Detail",
           "Error", "Filter", "Hit", "InvalidInput", "Key", "NotFound", "OutOfMemory", "Payload", "REMOVE", "Record",
           "Records", "SearchInfo", "Stats", "Upsert", "Value", "any_of", "distance", "every", "inspect", "key",
           "load_blob", "norm", "open", "open_blob", "open_in_memory", "repair", "version"]
