"""Words and figures of a bill in Chinese and English, after the console guide (§7)."""

import datetime as dt
import re
from decimal import ROUND_HALF_UP, Decimal

WORDS: dict[str, tuple[str, str]] = {
    # titles
    "invoice": ("电费账单", "Electricity bill"),
    "credit_note": ("红字账单（冲红）", "Credit note"),
    "adjustment": ("退补账单", "Adjustment"),
    "draft": ("草稿，尚未出账", "Draft, not issued"),
    # head
    "bill_no": ("账单编号", "Bill number"),
    "issued_on": ("出账日期", "Issued"),
    "due_on": ("付款期限", "Pay by"),
    "period": ("账期", "Billing period"),
    "days": ("{n} 天", "{n} days"),
    "customer": ("客户编号", "Customer no."),
    "account": ("户号", "Account no."),
    "contract": ("合同", "Contract"),
    "service_point": ("计量点", "Metering point"),
    "service_address": ("用电地址", "Supply address"),
    "amount_due": ("本期应付", "To pay for this period"),
    "amount_back": ("应退", "In your favour"),
    "nothing_due": ("本期无需付款", "Nothing to pay for this period"),
    "due_by": ("请于 {day} 前付款", "Please pay by {day}"),
    "settled_with": ("将与您的账户结算", "Settled with your account"),
    "balance_before": ("此前余额", "Balance before this bill"),
    "balance_owed": ("（您欠）", "you owe"),
    "balance_credit": ("（您有余款）", "in your favour"),
    "balance_after": ("账户余额，含本单", "Account balance with this bill"),
    "corrects": ("所涉账单", "About bill"),
    "reason": ("原因", "Reason"),
    # figures at a glance
    "used": ("用电量", "Energy used"),
    "fed": ("上网电量", "Energy fed in"),
    "a_day": ("日均", "A day"),
    "estimated": ("其中估算", "Of it estimated"),
    "estimated_note": (
        "估算部分：总量由示值测得，其在各时刻的分布为估算。",
        "Estimated: the amount is measured by the registers, its place in time is estimated.",
    ),
    # parts
    "charges": ("电费明细", "Charges"),
    "line": ("项目", "Item"),
    "quantity": ("数量", "Quantity"),
    "price": ("单价", "Price"),
    "amount": ("金额", "Amount"),
    "unit_of_money": ("金额单位：{currency}", "Amounts in {currency}"),
    "subtotal": ("小计", "Subtotal"),
    "rounding": ("舍入", "Rounding"),
    "total": ("合计", "Total"),
    "contains": ("含 {amount}", "contains {amount}"),
    "rounded_once": (
        "各行显示到分，合计按电价规定只舍入一次。",
        "Lines are shown rounded; the total is rounded once, as the tariff says.",
    ),
    "registers": ("示值", "Register readings"),
    "meter": ("表号", "Meter"),
    "direction": ("方向", "Direction"),
    "opening": ("起码", "Opening"),
    "closing": ("止码", "Closing"),
    "difference": ("抄见电量", "Difference"),
    "read_at": ("{start} 至 {end}", "{start} to {end}"),
    "register_import": ("正向有功", "Import"),
    "register_export": ("反向有功", "Export"),
    "rolled_over": ("（翻转）", "(rolled over)"),
    "daily": ("每日用电", "Your use, day by day"),
    "legend_measured": ("实测", "measured"),
    "legend_estimated": ("估算", "estimated"),
    "legend_missing": ("缺失", "missing"),
    "chart_name": (
        "每日用电柱状图，{start} 至 {end}，最高 {most}",
        "Bars of daily use from {start} to {end}, the highest {most}",
    ),
    "missing_days": ("{n} 天没有读数，不按零计。", "{n} days have no readings; they are not zero."),
    "compared": ("与以往相比", "Compared with before"),
    "this_period": ("本期", "This period"),
    "last_period": ("上期", "Last period"),
    "last_year": ("去年同期", "Last year"),
    "change": ("日均变化", "Change a day"),
    "tariff": ("电价", "Your tariff"),
    "tariff_days": ("适用 {start} 至 {end}", "For {start} to {end}"),
    "terms": ("合同参数", "Agreed"),
    "week_name": ("电价一周时段图", "The week's periods of the tariff"),
    "one_price": ("全天一个价格，不分时段。", "One price at all hours."),
    "hour": ("时", "h"),
    "notes": ("更正与退补", "Corrections and adjustments"),
    "correction_of": ("更正账单 {no}（{period}）", "Corrects bill {no} ({period})"),
    "service_period": ("{start} 至 {end}", "{start} to {end}"),
    "page": ("第 {page} 页，共 {pages} 页", "Page {page} of {pages}"),
    "proof": (
        "本单附有可验证的数据包：gridtally bill verify 可仅凭数据包与公钥重算。",
        "A bundle comes with this bill: gridtally bill verify recomputes it with nothing but the bundle and our public key.",
    ),
    # kinds of lines
    "kind_energy": ("电度电费", "Energy"),
    "kind_demand": ("基本电费", "Capacity and demand"),
    "kind_fixed": ("固定费用", "Fixed charges"),
    "kind_reactive": ("力调电费", "Power factor"),
    "kind_export": ("上网电量", "Energy fed in"),
    "kind_minimum": ("最低电费", "Minimum charge"),
    "kind_surcharge": ("附加费", "Surcharges"),
    "kind_discount": ("优惠", "Discounts"),
    "kind_tax": ("税", "Taxes"),
    "kind_correction": ("往期更正", "Corrections of earlier periods"),
    "kind_adjustment": ("退补", "Adjustment"),
    "kind_credit": ("冲红", "Credited"),
    # units
    "unit_kWh": ("度", "kWh"),
    "unit_day": ("天", "days"),
    "unit_month": ("月", "months"),
    "unit_year": ("年", "years"),
    "unit_cycle": ("期", "period"),
    "unit_correction": ("", ""),
    "unit_adjustment": ("", ""),
    "unit_credit": ("", ""),
    # week
    "workday": ("工作日", "Workdays"),
    "weekend": ("周末", "Weekends"),
    "holiday": ("节假日", "Holidays"),
    "every_day": ("每天", "Every day"),
    "monday": ("周一", "Mon"),
    "tuesday": ("周二", "Tue"),
    "wednesday": ("周三", "Wed"),
    "thursday": ("周四", "Thu"),
    "friday": ("周五", "Fri"),
    "saturday": ("周六", "Sat"),
    "sunday": ("周日", "Sun"),
    # e-mail
    "mail_subject": ("{issuer}：{title} {no}，{period}", "{issuer}: {title} {no}, {period}"),
    "mail_hello": ("尊敬的{name}：", "Dear {name},"),
    "mail_body": (
        "随信附上您的{title}（{no}），账期 {period}。",
        "please find attached your {title} {no} for {period}.",
    ),
    "mail_total": ("合计：{total}", "Total: {total}"),
    "mail_attached": (
        "附件：PDF、网页，以及可自行验证本单的数据包（JSON）。",
        "Attached: the bill as PDF and as a page, and a bundle (JSON) with which it can be verified.",
    ),
}

LABELS: dict[str, str] = {
    "super peak": "超尖峰",
    "critical peak": "尖峰",
    "sharp": "尖",
    "peak": "峰",
    "mid peak": "半尖峰",
    "half peak": "半尖峰",
    "shoulder": "平",
    "flat": "平",
    "off peak": "谷",
    "valley": "谷",
    "night": "夜间",
    "day": "日间",
    "deep valley": "深谷",
    "deep": "深谷",
    "all": "全天",
    "all year": "全年",
    "all day": "全天",
    "summer": "夏季",
    "winter": "冬季",
    "spring": "春季",
    "autumn": "秋季",
    "non summer": "非夏季",
    "standing": "基本费",
    "energy": "电度",
    "demand": "最大需量",
    "capacity": "容量",
    "power factor": "功率因数调整",
    "export": "上网",
    "minimum": "最低电费",
    "vat": "增值税",
    "gst": "消费税",
    "levy": "附加",
    "fund": "基金",
    "excess": "超出",
    "contract": "合同容量",
    "meter": "电表",
    "annual": "年度",
    "reactive": "无功",
    "basic": "基本",
    "true up": "年度结算",
    "goodwill": "优惠退补",
}
"""What tariffs commonly call periods, seasons and charges, in Chinese; other names stay as they are."""

CAUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^known after the bill: "), "出账后得知："),
    (re.compile(r"readings of (\S+) to ([^\s,;]+)"), r"\1 至 \2 的示值"),
    (re.compile(r"readings of ([^\s,;]+)"), r"\1 的示值"),
    (re.compile(r"the contract's tariff"), "合同电价变更"),
    (re.compile(r"a meter exchange"), "换表"),
    (re.compile(r"\btariff ([^\s,;]+)"), r"电价 \1 变更"),
    (re.compile(r"day flags of "), "公布日标记："),
    (re.compile(r"prices of ([^\s,;]+)"), r"\1 的公布价格"),
    (re.compile(r"a correction of an earlier cycle"), "更早账期的更正"),
    (re.compile(r" kWh\b"), " 度"),
    (re.compile(r"; "), "；"),
)
"""What `storage.bill_past` and `storage.bill_make` give as causes."""

TERMS: dict[str, tuple[str, str]] = {
    "contract_kw": ("合同容量 {value} kW", "contracted {value} kW"),
    "contract_kva": ("合同容量 {value} kVA", "contracted {value} kVA"),
    "capacity_kva": ("装机容量 {value} kVA", "capacity {value} kVA"),
}
SIGNS = {"CNY": "¥", "EUR": "€", "GBP": "£", "USD": "$", "AUD": "A$", "TWD": "NT$", "JPY": "¥", "HKD": "HK$"}
CHINESE_MONEY = {"CNY": "元", "TWD": "元（新台币）", "EUR": "欧元", "GBP": "英镑", "USD": "美元", "AUD": "澳元"}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MINUS = "\N{MINUS SIGN}"
_JOINED = re.compile(r"(?<=[^\W\d_])[-_](?=[^\W\d_])")
"""Between letters only: days and numbers keep their dashes."""
_TIER = re.compile(r"^(.*?)[,\s-]*\btier[\s-](\d+)$", re.IGNORECASE)


class Speech:
    """How a bill speaks: words, days, money and energy in one language."""

    def __init__(self, language: str) -> None:
        """Take ``zh`` or ``en``; any other language gets English."""
        self.is_chinese = language == "zh"
        self.lang = "zh" if self.is_chinese else "en"

    def word(self, key: str, **values: object) -> str:
        """Return the words of a key, filled in."""
        text = WORDS[key][0 if self.is_chinese else 1]
        return text.format(**values) if values else text

    def day(self, day: dt.date) -> str:
        """Return a day: 2026-11-23, or 23 Nov 2026."""
        return day.isoformat() if self.is_chinese else f"{day.day} {MONTHS[day.month - 1]} {day.year}"

    def period(self, start_on: dt.date, end_on: dt.date) -> str:
        """Return half-open days as people say them: with the last day."""
        last = end_on - dt.timedelta(days=1)
        return self.word("service_period", start=self.day(start_on), end=self.day(last))

    def amount(self, value: Decimal, digits: int) -> str:
        """Return an amount without its currency."""
        return grouped(value, digits)

    def money(self, value: Decimal, currency: str, digits: int) -> str:
        """Return an amount with its currency: 128.73 元, or ¥128.73."""
        text = grouped(abs(value), digits)
        sign = MINUS if value < 0 and any(digit in text for digit in "123456789") else ""
        if self.is_chinese:
            return f"{sign}{text} {CHINESE_MONEY.get(currency, currency)}"
        mark = SIGNS.get(currency)
        return f"{sign}{mark}{text}" if mark else f"{sign}{text} {currency}"

    def energy(self, energy_wh: int) -> str:
        """Return Wh as kWh, which customers call 度, with up to three decimals and at least one."""
        value = Decimal(energy_wh) / 1000
        digits = 3 if energy_wh % 100 else 1
        return f"{grouped(value, digits)} {self.word('unit_kWh')}"

    def unit(self, unit: str) -> str:
        """Return a unit as customers call it."""
        return self.word(f"unit_{unit}") if f"unit_{unit}" in WORDS else unit

    def reason(self, text: str) -> str:
        """Return why something was corrected; what gridtally itself wrote is said in Chinese, what people wrote is not."""
        if self.is_chinese and text.startswith("known after the bill: "):
            for pattern, chinese in CAUSES:
                text = pattern.sub(chinese, text)
        return text

    def label(self, text: str) -> str:
        """Return what a charge, period or season is called: known names in Chinese, others as they are."""
        tier = _TIER.match(text)
        stem, number = (tier.group(1), tier.group(2)) if tier else (text, "")
        plain = _JOINED.sub(" ", stem).strip()
        if self.is_chinese:
            stem = LABELS.get(plain.lower(), plain)
            return f"{stem} 第 {number} 档".strip() if number else stem
        stem = plain.upper() if plain.lower() in ("vat", "gst") else plain[:1].upper() + plain[1:]
        if not number:
            return stem
        return f"{stem}, tier {number}" if stem else f"Tier {number}"


def grouped(value: Decimal, digits: int) -> str:
    """Return a number with separators of thousands and a real minus.

    Example:
        >>> grouped(Decimal("-1234.5"), 2)
        '−1,234.50'
    """
    text = f"{value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):,f}"
    if text.startswith("-"):
        text = (MINUS if any(sign in text for sign in "123456789") else "") + text[1:]
    return text


def exact(value: Decimal, digits_min: int = 0, digits_max: int = 6) -> str:
    """Return a number with the decimals that it has, between two bounds.

    Example:
        >>> exact(Decimal("0.6000"), 2), exact(Decimal("0.123456789"), 2)
        ('0.60', '0.123457')
    """
    exponent = value.normalize().as_tuple().exponent
    return grouped(value, min(max(-int(exponent), digits_min), digits_max))
