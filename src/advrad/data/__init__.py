"""Images from folders, manifests and data sets known by name."""

from advrad.data.catalogue import CATALOGUE, Entry, Fetched, Source, entries, fetch, load
from advrad.data.check import Check
from advrad.data.folder import Dataset, Item, split_record, with_split
from advrad.data.labelled import Labelled, labelled
from advrad.data.layouts import LAYOUTS
from advrad.data.split import Parts, divide, limit
from advrad.data.stream import Images, batches

__all__ = [
    "CATALOGUE",
    "LAYOUTS",
    "Check",
    "Dataset",
    "Entry",
    "Fetched",
    "Images",
    "Item",
    "Labelled",
    "Parts",
    "Source",
    "batches",
    "divide",
    "entries",
    "fetch",
    "labelled",
    "limit",
    "load",
    "split_record",
    "with_split",
]
