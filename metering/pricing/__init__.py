"""Price models, one a file: each compiles a billing cycle of a tariff and prices quantities as columns.

The seam for further models: `compile_cycle`, `charge_columns` and `charge_lines` with these signatures.
"""
