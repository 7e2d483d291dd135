"""Price models, one a file: pure functions over columns and quantities; `metering.rating` composes them.

Energy is whole Wh in numpy columns; shares are fractions; decimals begin where money is made (`rating.Line`).
"""
