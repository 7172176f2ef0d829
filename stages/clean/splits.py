"""train or validation: what belongs together stays on one side."""

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.clean.params import CleanParams
from stages.core.draws import uniform


def assign_splits(params: CleanParams, kept: pd.DataFrame, clusters: NDArray[np.int64]) -> list[str]:
    """train or validation for each row: the source's word, else a draw.

    Rows of one group or of one cluster of look-alikes (labels, (N,)) are held out together: if one of them is, by
    its source's word or by the draw. A draw depends on the lowest group's name alone, so new pictures move no old
    ones, except by `validation_count`. Where the draw picks none of several, the lowest is held out. Pictures of the
    role regularisation are not what a model is judged by: alone they are not drawn.
    """
    names = kept["group"].fillna(kept["key"]).astype(str)
    together = _components(names, clusters)
    lowest = names.groupby(together).min().to_dict()
    told = set(together[kept["split"].eq("validation").to_numpy()].tolist())
    teaches = kept["role"].ne("regularisation")
    open_ones = np.unique(together[(teaches & kept["split"].isna()).to_numpy()]).tolist()
    draws = {label: uniform(params.seed, "validation", lowest[label]) for label in open_ones}
    ordered = sorted(set(draws) - told, key=lambda label: (draws[label], lowest[label]))
    sizes = Counter(together.tolist())
    if params.validation_count is None:
        drawn = {label for label in ordered if draws[label] < params.validation_share}
        if params.validation_share > 0 and not told | drawn and len(ordered) > 1:
            drawn = {ordered[0]}
    else:
        before = np.cumsum([0, *(sizes[label] for label in ordered)]) + sum(sizes[label] for label in told)
        drawn = {label for label, held in zip(ordered, before, strict=False) if held < params.validation_count}
        taught = set(together[teaches.to_numpy()].tolist())
        drawn -= {ordered[-1]} if drawn and drawn >= taught else set()
    held_out = told | drawn
    return ["validation" if label in held_out else "train" for label in together.tolist()]


def _components(names: pd.Series, clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """A label a row: equal for rows that share a name or a cluster, or are linked by others that do."""
    by_name, by_cluster = pd.factorize(names)[0], pd.factorize(clusters)[0] + len(names)
    ones, size = np.ones(len(names), dtype=bool), 2 * len(names)
    labels = connected_components(coo_array((ones, (by_name, by_cluster)), shape=(size, size)))[1]
    of_rows: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)[by_name]
    return of_rows


def clusters_of(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """A label for each of `count` pictures, equal for those that pairs (P, 2) link."""
    ones = np.ones(len(pairs), dtype=bool)
    labels = connected_components(coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count)))[1]
    return np.asarray(labels, dtype=np.int64)
