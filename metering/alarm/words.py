"""What each kind of alarm means and asks for, in Chinese and English: the text of its page."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class KindWords:
    """Words of one kind in one language."""

    name: str
    meaning: str
    cause: str
    consequence: str
    action: str
    """What the operator should do."""


_Pair = tuple[str, str]
_ZH, _EN = 0, 1

_NAMES: dict[str, _Pair] = {
    "tamper": ("开盖或干扰", "Tamper"),
    "magnetic_field": ("强磁场", "Magnetic field"),
    "reverse_energy": ("反向电量", "Reverse energy"),
    "use_on_closed_account": ("销户后用电", "Use on a closed account"),
    "lost_voltage": ("失压", "Lost voltage"),
    "lost_current": ("失流", "Lost current"),
    "current_without_voltage": ("无压有流", "Current without voltage"),
    "bypass_current": ("火零线电流不符", "Bypass current"),
    "theft_drop": ("用电持续下降", "Lasting drop"),
    "theft_tamper_and_drop": ("干扰后用电下降", "Tamper, then drop"),
    "theft_pattern": ("用电规律改变", "Pattern broken"),
    "theft_suspicion": ("窃电嫌疑", "Suspicion of theft"),
    "feeder_residual": ("台区损失电量", "Feeder residual"),
    "feeder_negative_loss": ("台区负损", "Negative loss"),
    "silent": ("无读数", "Silent"),
    "gateway_silent": ("网关无读数", "Gateway silent"),
    "clock_drift": ("时钟偏差", "Clock off"),
    "register_fault": ("示值异常", "Register fault"),
    "register_stuck": ("示值不走", "Register stuck"),
    "meter_hardware": ("电表硬件故障", "Meter hardware"),
    "battery_low": ("电池欠压", "Battery low"),
    "phase_rotation": ("相序改变", "Phase rotation"),
    "sum_check": ("电量不平", "Sum check fails"),
    "late_data": ("数据迟到", "Late data"),
    "refusals": ("拒收过多", "Many refusals"),
    "physical_maximum": ("超过额定", "Above the rating"),
    "high_low_use": ("用电突变", "High or low use"),
    "zero_use": ("零电量", "Zero use"),
    "scale_shift": ("倍率错误", "Scale shift"),
    "estimate_share": ("估算过多", "Too much estimated"),
    "check_meter_difference": ("主副表不符", "Check meter differs"),
    "voltage_out_of_range": ("电压越限", "Voltage out of range"),
    "voltage_unbalance": ("三相不平衡", "Voltage unbalance"),
    "harmonics": ("谐波超限", "Harmonics"),
    "frequency": ("频率越限", "Frequency"),
    "sag_swell": ("电压暂降或暂升", "Sag or swell"),
    "power_factor_low": ("功率因数低", "Low power factor"),
    "over_current": ("过流", "Over-current"),
    "outage": ("停电", "Outage"),
}
_MEANINGS: dict[str, _Pair] = {
    "tamper": (
        "电表报告表盖或端钮盖被打开，或受到干扰。",
        "The meter reports that a cover was opened, or that it was interfered with.",
    ),
    "magnetic_field": ("电表处有强磁场。", "There is a strong magnetic field at the meter."),
    "reverse_energy": ("没有上网合同的电表反向走字。", "A meter without an export contract runs backwards."),
    "use_on_closed_account": ("已销户或停用的计量点仍在用电。", "A closed or disconnected service point uses energy."),
    "lost_voltage": (
        "一相电压低于额定的 78%，该相仍有电流。",
        "A phase is below 78 % of the nominal voltage while it carries current.",
    ),
    "lost_current": (
        "一相有电压而几乎无电流，其余各相带负荷。",
        "A phase has voltage and next to no current while the others carry load.",
    ),
    "current_without_voltage": ("一相无电压而电流超过 2 A。", "A phase carries more than 2 A without voltage."),
    "bypass_current": ("火线与零线电流相差过大。", "Line and neutral current differ."),
    "theft_drop": (
        "用电量较自身历史持续下降，邻居没有。",
        "Use fell lastingly against the meter's own past, and its neighbours' did not.",
    ),
    "theft_tamper_and_drop": ("先有干扰事件，随后用电下降。", "A tamper event was followed by a fall in use."),
    "theft_pattern": ("日用电规律消失或只剩夜间用电。", "The daily pattern broke, or only nights are left."),
    "theft_suspicion": (
        "多项证据合计超过告警预算的门槛。",
        "Several pieces of evidence together pass the threshold of the alarm budget.",
    ),
    "feeder_residual": (
        "流入电量减去各户与技术损耗后仍有剩余。",
        "Inflow less all meters and the technical loss leaves energy over.",
    ),
    "feeder_negative_loss": ("各户合计大于流入电量。", "The meters together use more than flows in."),
    "silent": ("连续三个周期没有收到读数。", "No reading came for three of the meter's intervals."),
    "gateway_silent": (
        "一个网关下至少 80% 的电表无读数；这些电表不再单独告警。",
        "At least 80 % of a gateway's meters are silent; their own alarms are hidden.",
    ),
    "clock_drift": (
        "读数时间比接收时间超前三分钟以上。",
        "A reading is dated more than three minutes ahead of its reception.",
    ),
    "register_fault": (
        "示值回退、跳变或计量系统报错。",
        "The register fell or jumped, or the meter reports a measuring error.",
    ),
    "register_stuck": ("电表报告有功率，而示值不走。", "The meter reports power while its register stands still."),
    "meter_hardware": ("看门狗、存储器或硬件复位事件。", "A watchdog, memory or hardware reset event."),
    "battery_low": ("时钟电池将耗尽。", "The clock's battery is nearly empty."),
    "phase_rotation": ("相序与安装时不同。", "The phases rotate the other way than when installed."),
    "sum_check": ("各时段电量之和与示值之差不符。", "The intervals do not sum to the register's advance."),
    "late_data": ("读数到达过迟。", "Readings arrive late."),
    "refusals": ("十分钟内拒收或重复超过 1%。", "More than 1 % of ten minutes was refused or repeated."),
    "physical_maximum": ("平均功率超过额定的 1.1 倍。", "The mean power of an interval is above 1.1 times the rating."),
    "high_low_use": (
        "日均用电较上月或去年同月变化过大。",
        "Daily use differs much from last month or the same month last year.",
    ),
    "zero_use": ("在用账户连续多日零电量。", "An active account used nothing for days."),
    "scale_shift": (
        "用电量突变为约 10、100 或 1000 倍（或其倒数）。",
        "Use changed by a factor near 10, 100 or 1000, or one over it.",
    ),
    "estimate_share": ("估算电量占比过高或过久。", "Too much is estimated, or for too long."),
    "check_meter_difference": (
        "主表与副表之差超过准确度等级。",
        "Main and check meter differ by more than their class.",
    ),
    "voltage_out_of_range": ("相电压超出允许范围。", "A phase voltage is outside the permitted range."),
    "voltage_unbalance": ("三相电压偏离平均超过 2%。", "A phase deviates from the mean of three by more than 2 %."),
    "harmonics": ("电表报告谐波超限。", "The meter reports distortion above its limit."),
    "frequency": ("频率偏离额定超过 0.5 Hz。", "The frequency is more than 0.5 Hz from nominal."),
    "sag_swell": ("电表报告电压暂降或暂升。", "The meter reports a sag or a swell."),
    "power_factor_low": ("电表报告功率因数低。", "The meter reports a low power factor."),
    "over_current": ("电表报告过流。", "The meter reports over-current."),
    "outage": ("电表报告停电超过三分钟。", "The meter reports no supply for more than three minutes."),
}
_GROUPS: dict[str, tuple[tuple[str, ...], _Pair, _Pair, _Pair]] = {
    "theft": (
        (
            "tamper",
            "magnetic_field",
            "reverse_energy",
            "use_on_closed_account",
            "lost_voltage",
            "lost_current",
            "current_without_voltage",
            "bypass_current",
            "theft_drop",
            "theft_tamper_and_drop",
            "theft_pattern",
            "theft_suspicion",
        ),
        (
            "有人动过电表或接线、接线松脱，或用户情况改变。",
            "Someone worked on meter or wiring, a wire came loose, or the household changed.",
        ),
        ("电量漏计：由其他用户承担。", "Energy goes unbilled, and the other customers pay for it."),
        (
            "查看该表用电曲线与事件；确认前先排除空置、换户与检修，再派人带封印清单现场核查。",
            "See its curve and events; rule out an empty home, a new tenant, our own work; then send a crew.",
        ),
    ),
    "feeder": (
        ("feeder_residual", "feeder_negative_loss"),
        (
            "窃电、台区户变关系错误或倍率错误。",
            "Theft, a meter mapped to the wrong transformer, or a wrong multiplier.",
        ),
        ("线损无法解释，责任无法落实。", "Losses stay unexplained."),
        (
            "核对户变关系与倍率，再查看嫌疑最大的电表。",
            "Check the mapping and the multipliers first, then the meters that explain most of it.",
        ),
    ),
    "data": (
        ("silent", "gateway_silent", "clock_drift", "late_data", "refusals", "sum_check", "estimate_share"),
        ("停电、通信中断、电表或网关故障。", "No supply, no communication, or a faulty meter or gateway."),
        ("电费按估算，迟到的读数随后更正。", "Bills rest on estimates until the readings come."),
        (
            "先看同一变压器或网关下是否还有别的电表无读数，再联系通信或派人。",
            "See whether others below the same transformer or gateway are silent; then call or send someone.",
        ),
    ),
    "fault": (
        (
            "register_fault",
            "register_stuck",
            "meter_hardware",
            "battery_low",
            "phase_rotation",
            "physical_maximum",
            "high_low_use",
            "zero_use",
            "scale_shift",
            "check_meter_difference",
        ),
        (
            "电表故障、档案错误，或用户用电改变。",
            "A faulty meter, a wrong entry in the master data, or a customer who changed.",
        ),
        ("账单可能有误。", "The bill may be wrong."),
        (
            "核对档案（倍率、额定、装表日期），召测一次；仍不符则换表。",
            "Check multiplier, rating and date; read the meter once; exchange it if it still does not fit.",
        ),
    ),
    "quality": (
        (
            "voltage_out_of_range",
            "voltage_unbalance",
            "harmonics",
            "frequency",
            "sag_swell",
            "power_factor_low",
            "over_current",
            "outage",
        ),
        (
            "线路故障、过负荷、分接头不当或用户设备。",
            "A fault on the line, overload, a wrong tap, or a customer's equipment.",
        ),
        ("用户设备受损，供电质量不合格。", "Customers' equipment suffers, and supply is below standard."),
        (
            "看邻近电表是否相同：相同则处理变压器或线路，否则查该户接线。",
            "See whether neighbours show the same: then it is the transformer or the line, else the customer.",
        ),
    ),
}
_GROUP_OF = {kind: group for group, (kinds, *_) in _GROUPS.items() for kind in kinds}


def words_of(kind: str, language: str) -> KindWords:
    """Return the words of a kind; one that is not in the catalogue has only its name.

    Args:
        kind: Of `metering.alarm.catalogue.KINDS`.
        language: ``zh`` or ``en``.
    """
    if kind not in _NAMES:
        return KindWords(kind, "", "", "", "")
    place = _ZH if language == "zh" else _EN
    _, cause, consequence, action = _GROUPS[_GROUP_OF[kind]]
    return KindWords(_NAMES[kind][place], _MEANINGS[kind][place], cause[place], consequence[place], action[place])
