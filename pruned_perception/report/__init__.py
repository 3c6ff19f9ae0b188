"""The page that opens the black box: findings about one pruned network, drawn."""
