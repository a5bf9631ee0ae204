"""Images and the chart: how the service gets to where it runs."""
