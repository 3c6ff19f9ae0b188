"""The one command, `pruned-perception`; every subcommand is a module of this package."""
