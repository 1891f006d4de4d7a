"""The resource types: one file, one type. Private providers start with an underscore."""

if __name__ != "reconciler.modules":
    raise ImportError(
        "import resource types as reconciler.modules.NAME: a second copy would not be the same type"
    )
