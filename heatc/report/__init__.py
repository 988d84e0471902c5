"""
`heatc-report`: one page of HTML that shows runs, plans, fronts and evaluations.

`reading/` takes files apart, one module a kind of file. `sections/` draws, one module a section.
`page.py` puts the sections together with the style, the scripts and plotly.js. Nothing in here
computes a figure that a file does not have, but differences and shares of such figures.
"""
