"""Score two recognisers: error counts, an interval, and the matched-pairs test of their difference.

python examples/score_hypotheses.py
"""

from gristmill.models.measures.significance import mapsswe, relative_interval, wer_interval
from gristmill.models.measures.wer import score

REFERENCES = ["turn on the lights", "play some music", "what is the weather", "stop"] * 15
FIRST = ["turn on lights", "play music", "what is the weather", "stop"] * 15
SECOND = ["turn on the lights", "play sun music", "what is the weather", "stop"] * 15
SPEAKERS = [f"speaker {number // 5}" for number in range(len(REFERENCES))]


def main() -> None:
    """Print the scores of both systems and their difference."""
    results = {}
    for name, hypotheses in (("first", FIRST), ("second", SECOND)):
        result = results[name] = score(REFERENCES, hypotheses, SPEAKERS, normalise="basic")
        counts = (int(count.sum()) for count in (result.substitutions, result.deletions, result.insertions))
        found = wer_interval({0: result})  # by training seed; here there is one run of each system
        print(f"{name}: WER {found.value:.1%}, {found.low:.1%} to {found.high:.1%} by {found.blocks};", end=" ")
        print("{} substitutions, {} deletions, {} insertions".format(*counts))
    test = mapsswe(results["second"], results["first"])
    change = relative_interval({0: results["second"]}, {0: results["first"]})
    print(f"second against first: {change.value:+.1%} ({change.low:+.1%} to {change.high:+.1%}), ", end="")
    print(f"MAPSSWE z {test.z:.2f}, p {test.p:.2g} over {test.segments} segments")


if __name__ == "__main__":
    main()
