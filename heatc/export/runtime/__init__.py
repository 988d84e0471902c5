"""
What an exported `modeling.py` is made of.

The files of this folder are ordinary modules, which need torch and nothing of heatc. An exported
`modeling.py` gets their text, see `heatc.export.modeling`.
"""
