"""Pre-trade risk: `limits` what is allowed and why not, `kernels` the checks in order."""
