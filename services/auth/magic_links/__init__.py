"""Magic links and the authorizations behind them."""
