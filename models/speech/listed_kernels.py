"""How near a list's entries come to frequent words, as kernels."""

from __future__ import annotations

import numpy as np

from gristmill.models.kernels import kernel


@kernel
def edits(one, length, other, other_length, most, row):
    """Return the edit distance of two unit strings, or ``most + 1`` where it is more than ``most``; ``row`` is room."""
    if abs(length - other_length) > most:
        return most + 1
    for place in range(other_length + 1):
        row[place] = place
    for i in range(1, length + 1):
        before, row[0] = row[0], i
        least = i
        for j in range(1, other_length + 1):
            cost = before if one[i - 1] == other[j - 1] else 1 + min(before, row[j], row[j - 1])
            before, row[j] = row[j], cost
            least = min(least, cost)
        if least > most:
            return most + 1
    return min(row[other_length], most + 1)


@kernel
def nearness(spellings, own, common, words, log_probs, edit, floor):
    """Return of spellings (n, longest) the most of ``log_probs - edit * distance`` over the common ones, or ``floor``.

    ``common`` are the spellings of the ``words``, by falling ``log_probs``; a spelling's ``own`` word does not count.
    """
    lengths = (common > 0).sum(axis=1)
    found, row = np.full(len(spellings), floor), np.empty(common.shape[1] + 1, np.int64)
    for one in range(len(spellings)):
        length = (spellings[one] > 0).sum()
        for other in range(len(common)):
            if log_probs[other] <= found[one]:
                break
            if words[other] == own[one]:
                continue
            most = np.int64((log_probs[other] - found[one]) / edit)
            distance = edits(spellings[one], length, common[other], lengths[other], most, row)
            if distance <= most:
                found[one] = max(found[one], log_probs[other] - edit * distance)
    return found
