"""The catalog: which slides a data set is made of, frozen at its first run.

Way of the data: manifest → `sources` (places) → `identity` (slides, ids, patients) → `exclusion` → `stamp` (content) →
`grouping` (splits, groups) → `catalog` (the table). `docs/decisions/003-identity-of-a-slide.md` says why so.
"""

from exaone_prep.catalog.build import build_catalog
from exaone_prep.catalog.catalog import (
    CATALOG_FORMAT,
    NO_GROUP,
    SCHEMA,
    Catalog,
    CatalogMetadata,
    CatalogRow,
    content_id_of,
)
from exaone_prep.catalog.difference import explain_difference
from exaone_prep.catalog.glob import SLIDE_SUFFIXES
from exaone_prep.catalog.grouping import assign_groups, split_of
from exaone_prep.catalog.identity import ID_KEY_VARIABLE, clean_id, id_key_from_environment, members_of
from exaone_prep.catalog.private import PrivateRow, PrivateTable, locations
from exaone_prep.catalog.stamp import check_stamp, stamp_slide

__all__ = [
    "CATALOG_FORMAT",
    "ID_KEY_VARIABLE",
    "NO_GROUP",
    "SCHEMA",
    "SLIDE_SUFFIXES",
    "Catalog",
    "CatalogMetadata",
    "CatalogRow",
    "PrivateRow",
    "PrivateTable",
    "assign_groups",
    "build_catalog",
    "check_stamp",
    "clean_id",
    "content_id_of",
    "explain_difference",
    "id_key_from_environment",
    "locations",
    "members_of",
    "split_of",
    "stamp_slide",
]
