"""``python -m adbench_tgan``, and what the script ``adbench`` starts with."""


def main() -> None:
    """Be the command; Ctrl-C while that is still imported ends it as later, without a traceback."""
    try:
        from adbench_tgan.cli import entry

        entry()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
