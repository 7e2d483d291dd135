"""`python -m tests.fuzz NAME --seed N [--count N]`: run one fuzzer by hand, with the seed that a test printed."""

import argparse
import secrets
import time

from tests.fuzz import frames, validator

FUZZERS = {"frames": frames.run, "validator": validator.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=FUZZERS)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--count", type=int, default=100_000)
    chosen = parser.parse_args()
    seed = secrets.randbelow(2**32) if chosen.seed is None else chosen.seed
    print(f"{chosen.name}: seed {seed}, {chosen.count} inputs", flush=True)
    began = time.monotonic()
    print(FUZZERS[chosen.name](seed, chosen.count))
    print(f"no fault in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
