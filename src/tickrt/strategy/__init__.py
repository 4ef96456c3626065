"""What to do: policies, the rule-based fallback, pre-trade risk, accounts. Pure.

- `params`: the policies' parameters; `kernels`: the policies themselves.
- `risk.RiskLimits`, `risk.RiskReason`, `risk_kernels.check_intent`: the checks, in order.
- `state.new_strategies`: position, cash, fees and mode of each strategy.
"""
