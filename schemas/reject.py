"""Reasons for refusing a message or a reading; each is a dead letter with its bytes."""

import enum


class RejectCode(enum.IntEnum):
    """Why something was refused, in the order in which the checks run."""

    UNKNOWN_TOPIC = 1
    OVERSIZE = 2
    BAD_JSON = 3
    WRONG_TYPE = 4
    TOO_MANY_ELEMENTS = 5
    BAD_METER_ID = 6
    METER_MISMATCH = 7
    UNKNOWN_METER = 8
    IMPOSSIBLE_TIME = 9
    OUT_OF_RANGE = 10
    CONFLICTING_DUPLICATE = 11
    REGISTER_DECREASED = 12
    NO_TARIFF = 13
    BAD_FRAME = 14

    @property
    def word(self) -> str:
        """Return the code as users see it, in snake case."""
        return self.name.lower()


OPERATOR_ACTIONS: dict[RejectCode, str] = {
    RejectCode.UNKNOWN_TOPIC: "Correct the topic in the sender; nothing can be settled from it.",
    RejectCode.OVERSIZE: "Have the sender split its messages: 64 KiB at most.",
    RejectCode.BAD_JSON: "Look at the bytes; correct the sender.",
    RejectCode.WRONG_TYPE: "The detail names the field; correct the sender.",
    RejectCode.TOO_MANY_ELEMENTS: "Have the sender split its arrays: 1,000 elements at most.",
    RejectCode.BAD_METER_ID: "Correct the meter id in the sender.",
    RejectCode.METER_MISMATCH: "Topic and payload name different meters: check the sender.",
    RejectCode.UNKNOWN_METER: "Import the meter (`gridtally import meters`), then replay.",
    RejectCode.IMPOSSIBLE_TIME: "Set the meter's clock.",
    RejectCode.OUT_OF_RANGE: "Check the register modulus in the meter's master data.",
    RejectCode.CONFLICTING_DUPLICATE: "Two values for one instant: visit or query the meter.",
    RejectCode.REGISTER_DECREASED: "Reset: `gridtally open-epoch`, then replay. Exchanged: `gridtally meter exchange`.",
    RejectCode.NO_TARIFF: "Assign the meter to a service point for that time, then replay.",
    RejectCode.BAD_FRAME: "A record of a topic of ours is not a frame: find who else writes to it.",
}
