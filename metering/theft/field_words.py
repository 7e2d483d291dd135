"""What to look at in the field for each kind of lead, in English and Chinese."""

FIELD_WORDS: dict[str, tuple[str, str]] = {
    "theft_drop": (
        (
            "Clamp the service cable before the meter and compare with the meter's display under load. Look for a wire round the"
            " meter, a loose voltage link, a bridged current transformer. Ask whether the home is empty."
        ),
        "在表前电缆上用钳形表测电流，与电表显示对比；检查表外跨接线、电压连片松动、电流互感器短接；询问房屋是否空置。",
    ),
    "theft_tamper_and_drop": (
        (
            "Photograph seals and covers before touching them; compare seal numbers with the record. Then clamp and compare as for"
            " a fall. Keep what is found as evidence."
        ),
        "动手前先拍摄封印和表盖，核对封印编号；再用钳形表对比电流。所见物品作为证据保存。",
    ),
    "theft_pattern": (
        (
            "Visit at the hours that changed (see the day before and after). Look for a switch or a second feed that is used at"
            " some hours only, solar panels, a storage heater, a wrong meter clock."
        ),
        "在用电形状变化的时段到现场（见前后日曲线）；检查定时切换或第二路供电、光伏、蓄热设备、电表时钟错误。",
    ),
    "theft_suspicion": (
        (
            "Compare with neighbours and the transformer's residual first. In the field: meter constant and wiring against the"
            " record, then clamp and compare."
        ),
        "先对比邻户和台区损耗；现场核对电表倍率与接线档案，再用钳形表对比电流。",
    ),
}


def field_words(kind: str, language: str) -> str:
    """Return what to check for a kind of lead.

    Args:
        kind: Of `metering.theft.ledger.THEFT_KINDS`.
        language: ``zh``; any other is English.

    Example:
        >>> field_words("theft_drop", "en")[:27]
        'Clamp the service cable bef'
    """
    english, chinese = FIELD_WORDS[kind]
    return chinese if language == "zh" else english
