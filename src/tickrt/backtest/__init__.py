"""The same step kernel against hftbacktest as the venue, and the figures that come out.

- `run.run_backtest`: a session's configuration in, a report out.
- `venue.VenueConfig`: queue model, order latency; `latency.InferenceLatency`: what thinking costs.
- `metrics`: PnL, Sharpe, drawdown, turnover, fill ratio, hit rate.
"""
