"""What `scripts/bench` is made of, in the order in which to read it.

cli       arguments -> Settings; what is missing; exit code
session   which measurements there are, in which order, how long they will take
loads     what is measured: how each load is put on, what it must give, and its figures
proxies   how each proxy is configured and started
backends  what stands behind the proxies
process   processes that end with the benchmark
meter     what the processes and the machine spend
results   measurements, medians, JSON
aims      what l4lb has to reach
report    Markdown
charts    SVG; the only file that knows matplotlib
machine   what it was measured on, and with which versions
"""
