"""The dashboards, one file each; `panels` is what they are made of."""
