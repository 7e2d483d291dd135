"""`python -m bench.detection NAME`: attacks, look-alikes, honest, early, feeder, faults; `--half 0` is for choices, 1 reports."""

import argparse

from bench.detection import faults, feeder, theft
from bench.detection.swiss import read_town


def main() -> None:
    """Run one evaluation and print its table."""
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__)
    parser.add_argument("name", choices=["attacks", "look-alikes", "honest", "early", "feeder", "lv-feeder", "faults"])
    parser.add_argument(
        "--half", type=int, choices=[0, 1, 2], default=1, help="Meters: 0 for choices, 1 for reports, 2 all."
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=100)
    chosen = parser.parse_args()
    seeds = list(range(chosen.seed, chosen.seed + chosen.runs))
    if chosen.name == "lv-feeder":
        feeder.lv_feeder(seeds)
        return
    whole = read_town()
    town = whole if chosen.half == 2 else whole.half(chosen.half)
    other = whole if chosen.half == 2 else whole.half(1 - chosen.half)
    print(f"{chosen.name}: half {chosen.half}, {len(town.names)} meters, seeds {seeds}", flush=True)
    match chosen.name:
        case "attacks":
            theft.attacks(town, other, seeds)
        case "early":  # the attack begins in the third week, in a town of more honest meters
            theft.attacks(town, other, seeds, onset=2, share=0.2)
        case "look-alikes":
            theft.look_alikes(town, seeds)
        case "honest":
            theft.honest(town)
        case "feeder":
            feeder.groups(town, seeds)
        case "faults":
            faults.faults(town, chosen.seed)


if __name__ == "__main__":
    main()
