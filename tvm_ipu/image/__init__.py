"""The offline image: its layout, writer and reader."""
