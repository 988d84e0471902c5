"""
Readers: one a format, strict, and bounded before anything is built.

    source        bytes of a file or a pipe, files mapped into memory, arguments that are paths
    json_text     JSON: size, depth, number of values, repeated keys, finite numbers
    fields        typed access to what JSON held
    yaml_text     YAML: size, depth, number of nodes, repeated keys, no aliases
    zip_archive   zip: every byte accounted for, members checked by their CRC-32 when they are used
    npz           .npz: names, shapes and dtypes before data; data sets
    safetensors_file  safetensors: what the reference library accepts, mapped

Whatever is wrong with a file is a `HeatcError` that names it. docs/design/hostile.md says how that
is tried.
"""
