"""Words of the console in Chinese and English, the same on every page (console guide §7)."""

import json
import re
from typing import Any

from console.alarm_words import ALARM_WORDS
from console.billing_words import BILLING_WORDS
from console.code_words import EVENTS, REJECT_ACTIONS_ZH, REJECTS
from metering.alarm.catalogue import KINDS
from metering.alarm.words import words_of as alarm_words_of
from metering.detect.events import meaning_of
from schemas.quality import Quality
from schemas.reject import OPERATOR_ACTIONS, RejectCode

LANGUAGES = ("zh", "en")

_WORDS: dict[str, tuple[str, str]] = {
    # around every page
    "main_nav": ("主导航", "Main"),
    "control_room": ("监控", "Control room"),
    "alarms": ("告警", "Alarms"),
    "dead_letters": ("死信", "Dead letters"),
    "skip": ("跳到内容", "Skip to content"),
    "live": ("实时", "Live"),
    "not_live": ("此页不自动更新", "this page does not update itself"),
    "no_script": ("未启用脚本：数值为 {at} 的，请手动刷新。", "No script: figures are of {at}; reload to renew them."),
    "stale_since": ("停更，自", "stale since"),
    "stream_lost": (
        "与数据流的连接已断，以下为断开前的数值；正在重新连接。停更，自",
        "The stream is lost and being tried again; what is shown is from before. Stale since",
    ),
    "refresh_failed": ("未能刷新，页面保持原样；请再试。", "Could not refresh; the page is as it was. Try again."),
    "find_meter": ("表号", "Meter no."),
    "open": ("打开", "Open"),
    "dark_light": ("深色/浅色", "Dark/Light"),
    "key_help": ("按键", "Keys"),
    "key_refresh": ("刷新列表与排序", "refresh lists and order"),
    "key_find": ("查找电表", "find a meter"),
    "keys_on": ("启用单键", "single keys are on"),
    "hold_pulse": ("停止闪烁", "Stop pulsing"),
    "times_in": ("时间：", "Times are"),
    "interface": ("接口（OpenAPI）", "Interface (OpenAPI)"),
    "unacked_active": ("未确认 / 活动", "unacked / active"),
    "priority_1": ("紧急", "critical"),
    "priority_2": ("高", "high"),
    "priority_3": ("中", "medium"),
    "priority_4": ("低", "low"),
    # control room
    "total_load": ("总负荷", "Total load"),
    "fed_in": ("光伏上网", "Fed in"),
    "feeding": ("块表上网", "meters feed in"),
    "on_time": ("按时采集", "Heard on time"),
    "of_meters": ("块表", "meters"),
    "readings_rate": ("读数", "Readings"),
    "charges_rate": ("电费更新", "Charges"),
    "per_second": ("/秒", "/s"),
    "settled_total": ("累计结算", "settled in all"),
    "mean_10_s": ("近 10 秒平均", "mean of 10 s"),
    "delay": ("端到端延迟 p50 / 最大", "Delay p50 / max"),
    "last_minute": ("条，近 1 分钟", "in the last minute"),
    "newest": ("最近", "newest"),
    "load_curve": ("总负荷，近 24 小时", "Total load, last 24 hours"),
    "by_quarter": ("每刻钟均值", "means of quarter-hours"),
    "averaged_share": ("{share} % 为长间隔均摊", "{share} % averaged over long intervals"),
    "until": ("截至", "until"),
    "load_sentence": (
        "近 24 小时每刻钟的总负荷：最高 {high} kW，最低 {low} kW，最后 {last} kW，缺 {gaps} 刻钟",
        "Load by quarter-hours, last 24 hours: highest {high} kW, lowest {low} kW, last {last} kW; {gaps} are missing",
    ),
    "load_unknown": ("近 24 小时没有负荷数据", "No load data in the last 24 hours"),
    "curve_not_read": ("曲线尚未读出。", "The curve has not been read yet."),
    "table": ("表格", "Table"),
    "top_meters": ("负荷最大的电表", "Top meters by load"),
    "resort": ("重排", "Re-sort"),
    "refresh": ("刷新", "Refresh"),
    "interval": ("周期", "its interval"),
    "age": ("已过", "Age"),
    "priority": ("优先级", "Priority"),
    "comma": ("，", ", "),
    "colon": ("：", ": "),
    "no_data": ("无数据。", "No data."),
    "new_rows": ("条新告警，按 r 排入", "new, press r"),
    "none_active": ("没有待处理的告警。", "No alarm needs anyone."),
    "what": ("告警", "Alarm"),
    "subject": ("对象", "Subject"),
    "since_when": ("发生", "Since"),
    "no_letters": ("没有死信：收到的每条报文都已入账。", "None: every message that came was settled."),
    "reason": ("原因", "Reason"),
    "stage": ("环节", "Stage"),
    "count": ("数量", "Count"),
    "latest_refused": ("最近的死信", "Newest"),
    "system": ("系统", "System"),
    "lag": ("滞后", "Lag"),
    "waiting": ("积压", "Waiting"),
    "done": ("已处理", "Done"),
    "behind": ("落后", "behind"),
    "validate": ("校验", "validate"),
    "settle": ("结算", "settle"),
    "detect": ("检测", "detect"),
    # states and kinds of alarms
    "unacknowledged": ("未确认", "unacknowledged"),
    "acknowledged": ("已确认", "acknowledged"),
    "returned": ("已恢复未确认", "returned, unacknowledged"),
    "cleared": ("已恢复", "cleared"),
    "shelved": ("已搁置", "shelved"),
    "suppressed": ("已抑制", "suppressed"),
    "out_of_service": ("停用", "out of service"),
    # a meter
    "meter": ("电表", "Meter"),
    "power_now": ("最近时段功率", "Power, newest interval"),
    "last_register": ("末次示值", "Last register"),
    "quality_of": ("质量", "Quality"),
    "covered": ("实测", "actual"),
    "of_last_days": ("近 {days} 天", "last {days} days"),
    "long_count": ("长间隔", "long"),
    "high_count": ("可疑", "suspect"),
    "missing_time": ("缺失", "missing"),
    "curve": ("负荷曲线", "Load curve"),
    "daily_use": ("日用电量", "Energy by day"),
    "two_days": ("2 天", "2 days"),
    "week": ("周", "week"),
    "month": ("月", "month"),
    "csv": ("CSV", "CSV"),
    "meter_sentence": (
        "电表 {meter} 近 {days} 天：{bars} 段，最高 {high} {unit}，缺失 {missing}",
        "Meter {meter}, last {days} days: {bars} bars, highest {high} {unit}, {missing} missing",
    ),
    "partly": ("其中缺", "of it missing"),
    "actual": ("实测", "actual"),
    "averaged": ("长间隔（均摊）", "long (averaged)"),
    "suspect": ("可疑", "suspect"),
    "exported": ("上网", "fed in"),
    "missing": ("缺失", "missing"),
    "not_reported": ("未上报", "not reported"),
    "missing_not_zero": ("缺失（不是 0）", "missing (not 0)"),
    "opening": ("起始", "opening"),
    "straddling": ("跨时段", "straddling"),
    "rollover": ("翻转", "rollover"),
    "late": ("迟到", "late"),
    "long": ("长间隔", "long"),
    "high": ("可疑：超额定功率", "suspect: above rated power"),
    "running_charge": ("滚动电费", "Running charge"),
    "since_day": ("{day} 起", "since {day}"),
    "as_of": ("截至", "as of"),
    "item": ("项目", "Item"),
    "quantity": ("数量", "Quantity"),
    "price": ("单价", "Price"),
    "amount": ("金额", "Amount"),
    "total_not_billed": ("合计（未出账）", "Total (not billed)"),
    "registers": ("示值", "Registers"),
    "import": ("正向有功总", "Import"),
    "export": ("反向有功总", "Export"),
    "voltage_current": ("电压 · 电流", "Voltage · current"),
    "alarms_events": ("告警与事件", "Alarms and events"),
    "no_events": ("没有告警，也没有事件。", "No alarm and no event."),
    "newest_intervals": ("最近的时段", "Newest intervals"),
    "time": ("时间", "Time"),
    "message": ("报文", "Message"),
    "no_reading": ("尚无读数。", "No reading yet."),
    "no_reading_do": (
        "电表第一次上报后，示值和电费出现在这里。若应已上报：看告警和死信。",
        "Register and charge appear here with its first reading. If it should have sent one: look at alarms and dead letters.",
    ),
    # how a charge came about
    "explain": ("说明", "Explain"),
    "tier_n": ("第 {n} 档加价", "tier {n} adder"),
    "fixed": ("基本费", "fixed charge"),
    "flat": ("平", "flat"),
    "peak": ("峰", "peak"),
    "sharp": ("尖", "sharp"),
    "valley": ("谷", "valley"),
    "deep_valley": ("深谷", "deep valley"),
    "summer": ("夏季", "summer"),
    "winter": ("冬季", "winter"),
    "all_year": ("全年", "all year"),
    "workday": ("工作日", "workdays"),
    "weekend": ("周末", "weekends"),
    "holiday": ("节假日", "holidays"),
    "charge_line": ("电费行", "Charge line"),
    "rounding": (
        "各行的两位小数只为便于阅读；合计只舍入一次。",
        "Lines are rounded for the eye only; the total is rounded once.",
    ),
    "tariff": ("电价", "Tariff"),
    "version_from": ("{day} 起的版本", "version from {day}"),
    "rest_of_day": ("其余时间", "all other times"),
    "tier_range": ("本周期用电 {low}–{high} kWh 的部分", "the part of the cycle's energy from {low} to {high} kWh"),
    "tier_above": ("本周期用电超过 {low} kWh 的部分", "the part of the cycle's energy above {low} kWh"),
    "cycle_so_far": ("本周期至今 {energy} kWh", "the cycle so far: {energy} kWh"),
    "per_cycle": ("每账期", "per billing cycle"),
    "per_day": ("每天", "per day"),
    "intervals_n": ("{n} 个时段", "{n} intervals"),
    "whole_in": ("整段落在此时段", "wholly in this period"),
    "split_share": (
        "跨时段分摊，或同一计量点的另一块表",
        "share of intervals across periods, or of another meter at this point",
    ),
    "line_is": ("数量 × 单价 = 金额", "quantity × price = amount"),
    "by_day_sentence": (
        "本周期每日电量：{days} 天，最高 {high} kWh",
        "Energy of each day of the cycle: {days} days, highest {high} kWh",
    ),
    "newest_readings": ("最近的读数", "Newest readings"),
    "difference": ("电量 = 后示值 − 前示值", "energy = register after − register before"),
    "before": ("前示值", "Before"),
    "after": ("后示值", "After"),
    "none_in_period": ("本周期此时段还没有读数。", "No reading in this period of the cycle yet."),
    # raw messages
    "raw_message": ("原始报文", "Raw message"),
    "show": ("查看", "Show"),
    "bytes": ("字节", "bytes"),
    "shown_cut": ("只显示前 64 KiB。", "Only the first 64 KiB are shown."),
    "raw_from_letter": (
        "Kafka 中已不再保存；以下取自死信。",
        "Kafka no longer holds it; this is what the dead letter kept.",
    ),
    "raw_expired": (
        "Kafka 中已不再保存这条报文（已过保存期）。由它入账的读数仍在账本中。",
        "Kafka no longer holds this message (past its retention). The readings settled from it are still in the ledger.",
    ),
    "raw_never": ("还没有这条报文：位移超出末尾。", "There is no such message yet: the offset is past the end."),
    "raw_no_element": ("这条记录中没有这个元素。", "The record has no such element."),
    "refused_because": ("未入账", "Refused"),
    "letter_replayed": ("之后已重放。", "It was replayed since."),
    "letter_discarded": ("之后已作废。", "It was discarded since."),
    "sent_by": ("来自", "Sent by"),
    # what went wrong
    "not_found": ("没有这个页面。", "There is no such page."),
    "not_found_do": ("检查地址，或从监控页开始。", "Check the address, or begin at the control room."),
    "no_meter": ("档案中没有电表 {meter}。", "There is no meter {meter} in the master data."),
    "no_meter_do": (
        "检查表号；新表用 gridtally import meters FILE.csv 导入。建档前的报文保存在死信中，可重放。",
        "Check the number; `gridtally import meters FILE.csv` adds meters. What it sent before is kept as dead letters.",
    ),
    "bad_request": ("地址中有不能用的值。", "A value in the address cannot be used."),
    "database_away": ("数据库没有应答。", "The database does not answer."),
    "database_away_do": (
        "没有数据丢失：读数留在 Kafka 中，数据库恢复后继续结算。请稍后重试；若持续，运行 gridtally status。",
        "Nothing is lost: readings wait in Kafka and are settled when it is back. Try again; if it lasts, run `gridtally status`.",
    ),
    "kafka_away": ("Kafka 没有应答，报文暂时读不出。", "Kafka does not answer, so the message cannot be read now."),
    "kafka_away_do": (
        "账本不受影响。请稍后重试；若持续，运行 gridtally status。",
        "The ledger is not concerned. Try again; if it lasts, run `gridtally status`.",
    ),
    "failed": ("此页出错。", "This page failed."),
    "failed_do": (
        "数据不受影响。请重试；若重复出现，请把事件号告诉技术员。",
        "The data are not concerned. Try again; if it comes again, give the incident number to the technician.",
    ),
    "incident": ("事件号", "Incident"),
    "retry": ("重试", "Try again"),
    "to_room": ("回到监控", "To the control room"),
    **ALARM_WORDS,
    **BILLING_WORDS,
}

_CURRENCIES = {"CNY": ("元", "CNY")}
_DETAILS = (
    (
        re.compile(r"no reading for more than (\d+) s, (\d+) intervals"),
        ("超过 {0} 秒（{1} 个周期）没有读数", "no reading for more than {0} s ({1} intervals)"),
    ),
    (re.compile(r"event ([\w.-]+)(?:: (.*))?", re.DOTALL), ("{event}{rest}", "{event}{rest}")),
)
_BROWSER_WORDS = ("live", "stale_since", "stream_lost", "refresh_failed", "new_rows", "missing", "behind")


class Words(dict[str, str]):
    """The words of one language, and what is said with them."""

    def __init__(self, language: str) -> None:
        """Take the words of a language of LANGUAGES."""
        self.place = LANGUAGES.index(language)
        super().__init__({name: pair[self.place] for name, pair in _WORDS.items()})

    def __getattr__(self, name: str) -> str:
        """Return a word; templates ask this way, and a word that is not there is an error."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no word {name!r}") from None

    def say(self, name: str, **values: Any) -> str:
        """Return a sentence with its values."""
        return self[name].format(**values)

    def kind(self, kind: str) -> str:
        """Return the word of an alarm kind; one without a word is shown as it is."""
        return alarm_words_of(kind, LANGUAGES[self.place]).name

    def means(self, kind: str) -> str:
        """Return what an alarm of a kind means and asks for."""
        said = alarm_words_of(kind, LANGUAGES[self.place])
        return ("", " ")[self.place].join(filter(None, (said.meaning, said.action)))

    def bill_state(self, state: str) -> str:
        """Return the word of a bill's state."""
        return self[f"state_{state}"]

    def case_state(self, state: str) -> str:
        """Return the word of a theft case's state."""
        return self[f"case_state_{state}"]

    def bill_kind(self, kind: str) -> str:
        """Return the word of a kind of bill."""
        return self[f"bill_kind_{kind}"]

    def bill_label(self, kind: str, label: str) -> str:
        """Return what a bill's line is called: of charges made here a word, of a tariff's its own label."""
        return self.get(f"line_{kind}") or self.label(label)

    def action(self, action: str) -> str:
        """Return the word of what somebody did; one without a word is shown as it is."""
        return self.get(f"action_{action.removeprefix('bill.')}", action)

    def hold(self, reason: str) -> str:
        """Return the word of why a bill is held; one without a word is shown as it is."""
        return self.get(f"hold_{reason}", reason)

    def change(self, reason: str) -> str:
        """Return the word of why a charge changed; one without a word is shown as it is."""
        return self.get(f"change_{reason}", reason)

    def event(self, code: str) -> str:
        """Return the word of an event code; vendors have many, so one without a word is shown as it is."""
        pair = EVENTS.get(code.lower().replace("-", "_").replace(".", "_"))
        if pair:
            return pair[self.place]
        meaning = meaning_of(code)
        if meaning is None:
            return code
        return self.kind(meaning[0]) + ("" if meaning[1] else f" · {self['cleared']}")

    def reject(self, code: str) -> str:
        """Return the word of a reject code, as the database has it."""
        found = RejectCode.__members__.get(code.upper())
        return REJECTS[found][self.place] if found else code

    def reject_action(self, code: str) -> str:
        """Return what to do about a reject code."""
        found = RejectCode.__members__.get(code.upper())
        if found is None:
            return ""
        return (REJECT_ACTIONS_ZH if self.place == 0 else OPERATOR_ACTIONS)[found]

    def detail(self, text: str) -> str:
        """Return the detail of an alarm, whose text the agent wrote in English, in this language where it is known."""
        for pattern, pair in _DETAILS:
            match = pattern.fullmatch(text)
            if match:
                event, rest = match.group(1), match.groups()[-1]
                values = {"event": self.event(event), "rest": f": {rest}" if rest else ""}
                return pair[self.place].format(*match.groups(), **values)
        return text

    def label(self, label: str) -> str:
        """Return the words of a charge line's label, such as ``summer peak`` or ``tier 2``."""
        if label.startswith("tier "):
            return self.say("tier_n", n=label.removeprefix("tier "))
        return " ".join(self.get(word, word) for word in label.split(" "))

    def quality(self, flags: int) -> str:
        """Return the quality flags of an interval."""
        return ("、", ", ")[self.place].join(self[word] for word in Quality(flags).words)

    def currency(self, code: str) -> str:
        """Return how a currency is written beside an amount."""
        return _CURRENCIES[code][self.place] if code in _CURRENCIES else code

    @property
    def for_browser(self) -> str:
        """Return what the script says, as JSON."""
        words = {name: self[name] for name in _BROWSER_WORDS}
        kinds = {kind: self.kind(kind) for kind in KINDS}
        units = {code: pair[self.place] for code, pair in _CURRENCIES.items()}
        return json.dumps({**words, "kinds": kinds, "units": units}, ensure_ascii=False)


_ALL = {language: Words(language) for language in LANGUAGES}


def words_of(language: str) -> Words:
    """Return all words in one language."""
    return _ALL[language]
