"""The map of a page: a Bokeh figure, whose points the page's script fills in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bokeh.plotting import figure

SOURCE_NAME = "points"
# Bokeh escapes the values of `@column`.
_TOOLTIP = """
<div style="display: flex; gap: 10px; align-items: center; max-width: 260px; padding: 3px">
  <img src="@thumbnail" alt="" width="72" height="72" style="border-radius: 6px; object-fit: cover; flex: none">
  <div style="min-width: 0; overflow-wrap: anywhere; font: 12px/1.35 system-ui, sans-serif">
    <strong>@key</strong><br>@label
  </div>
</div>
"""


def map_item() -> object:
    """Returns the map as the JSON object that `Bokeh.embed.embed_item` takes; it has no points yet."""
    from bokeh.embed import json_item

    return json_item(_figure())


def map_script() -> str:
    """Returns the script of Bokeh, which the map needs."""
    from bokeh.resources import Resources

    script: str = Resources(mode="inline", components=["bokeh"]).js_raw[0]
    return script


def _figure() -> figure:
    from bokeh.models import BoxZoomTool, ColumnDataSource, HoverTool, PanTool, ResetTool, TapTool, WheelZoomTool
    from bokeh.plotting import figure

    wheel = WheelZoomTool(zoom_on_axis=False)
    plot = figure(
        sizing_mode="stretch_both",
        min_height=280,
        tools=[PanTool(), BoxZoomTool(match_aspect=True), ResetTool(), TapTool()],
        toolbar_location="above",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        match_aspect=True,
        min_border=0,
    )
    plot.add_tools(wheel)
    plot.toolbar.active_scroll = wheel
    plot.toolbar.logo = None
    plot.axis.visible = False
    plot.grid.visible = False
    # Without any point, Bokeh warns that there is no range.
    start = {"x": [0.0], "y": [0.0], "key": [""], "label": [""], "colour": ["transparent"], "thumbnail": [""]}
    source = ColumnDataSource(start, name=SOURCE_NAME)
    points = plot.scatter(
        "x",
        "y",
        source=source,
        size=7,
        fill_color="colour",
        fill_alpha=0.75,
        line_color=None,
        selection_fill_alpha=1,
        selection_line_color="#888888",
        nonselection_fill_alpha=0.25,
    )
    plot.add_tools(HoverTool(tooltips=_TOOLTIP, renderers=[points], limit=1))
    return plot
