"""Chaos with the real programs: two workers, two controllers, thirty guests, a VIM that misbehaves.

`plan` says what happens when, by the seed; `site` makes it happen; `ledger` keeps what truly
happened; `oracle` compares that with what the VIM heard. Unlike the simulated runs beside it a run
takes its time, and its datagrams are not the same twice: what is the same is the plan.
"""
